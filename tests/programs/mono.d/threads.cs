// Threads, locks, pool, tasks, collection while they run.
using System;
using System.Collections.Concurrent;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

static class Threads {
    [ThreadStatic] static int mine;
    static async Task<int> Steps(int n) { int s = 0; for (int i = 0; i < n; i++) { await Task.Yield(); s += i; } return s; }
    static void Main() {
        object key = new object(); int n = 0, m = 0; long garbage = 0;
        var ts = Enumerable.Range(0, 12).Select(k => new Thread(() => {
            for (int i = 0; i < 3000; i++) { lock (key) n++; Interlocked.Increment(ref m); mine++; var b = new byte[200]; b[i % 200] = 1; Interlocked.Add(ref garbage, b.Length); }
            if (mine != 3000) Console.WriteLine("thread static " + mine);
        })).ToArray();
        foreach (var t in ts) t.Start(); for (int i = 0; i < 5; i++) { GC.Collect(); Thread.Sleep(1); } foreach (var t in ts) t.Join();
        Console.WriteLine("{0} {1} {2}", n, m, garbage);
        Console.WriteLine(Enumerable.Range(0, 100).Select(i => Task.Run(() => { int s = 0; for (int j = 0; j < i * 100; j++) s ^= j * i; return s; })).ToArray().Select(t => t.Result).Aggregate(0L, (h, v) => h * 31 + v));
        Console.WriteLine(Task.WhenAll(Enumerable.Range(1, 20).Select(i => Steps(i * 5))).Result.Sum());
        var q = new BlockingCollection<int>(10); var p = Task.Run(() => { for (int i = 0; i < 5000; i++) q.Add(i); q.CompleteAdding(); }); long got = 0; foreach (int v in q.GetConsumingEnumerable()) got += v; p.Wait(); Console.WriteLine(got);
        var d = new ConcurrentDictionary<int, int>(); Parallel.For(0, 4000, i => d.AddOrUpdate(i % 100, 1, (k, v) => v + 1)); Console.WriteLine("{0} {1}", d.Count, d.Values.Sum());
        int rounds = 0; var a = new AutoResetEvent(false); var b2 = new AutoResetEvent(false); var ping = new Thread(() => { for (int i = 0; i < 500; i++) { a.WaitOne(); rounds++; b2.Set(); } }); ping.Start(); for (int i = 0; i < 500; i++) { a.Set(); b2.WaitOne(); } ping.Join(); Console.WriteLine(rounds);
        try { Task.Run(() => { throw new InvalidOperationException("in a task"); }).Wait(); } catch (AggregateException e) { Console.WriteLine(e.InnerException.Message); }
    }
}
