// Allocation, virtual and interface calls, generics, delegates, iterators, LINQ, finalizers.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;

interface IShape { double Area { get; } }
abstract class Shape : IShape { public abstract double Area { get; } public virtual string Name { get { return GetType().Name; } } }
class Circle : Shape { public double R; public override double Area { get { return Math.PI * R * R; } } }
class Box : Shape { public double W, H; public override double Area { get { return W * H; } } public override string Name { get { return "box" + base.Name; } } }
struct Point : IComparable<Point> { public int X, Y; public int CompareTo(Point o) { return X != o.X ? X.CompareTo(o.X) : Y.CompareTo(o.Y); } }
class Node { public Node Left, Right; public int Value; public byte[] Pad; }
class Final { public static int Count; ~Final() { System.Threading.Interlocked.Increment(ref Count); } }

static class Objects {
    static Node Tree(int depth, int v) { return depth == 0 ? null : new Node { Value = v, Left = Tree(depth - 1, 2 * v), Right = Tree(depth - 1, 2 * v + 1), Pad = new byte[v % 60] }; }
    static long Sum(Node n) { return n == null ? 0 : n.Value + n.Pad.Length + Sum(n.Left) + Sum(n.Right); }
    static IEnumerable<int> Walk(Node n) { if (n == null) yield break; foreach (int v in Walk(n.Left)) yield return v; yield return n.Value; foreach (int v in Walk(n.Right)) yield return v; }
    static T Fold<T, U>(IEnumerable<U> l, T s, Func<T, U, T> f) { foreach (U u in l) s = f(s, u); return s; }
    [MethodImpl(MethodImplOptions.NoInlining)] static void Finals() { for (int i = 0; i < 5000; i++) new Final(); }

    static void Main() {
        var keep = Tree(14, 1); long total = 0;
        for (int i = 0; i < 30; i++) { var t = Tree(12, i + 1); total += Sum(t); if (i % 7 == 0) keep.Left = t; }
        Console.WriteLine("{0} {1}", total, Sum(keep));
        Console.WriteLine(Fold(Walk(keep).Take(2000), 17L, (h, v) => h * 31 + v));
        var shapes = Enumerable.Range(1, 3000).Select(i => i % 3 == 0 ? (Shape)new Box { W = i, H = 2 } : new Circle { R = i / 9.0 }).ToList();
        Console.WriteLine(shapes.Cast<IShape>().Sum(s => s.Area).ToString("R"));
        foreach (var g in shapes.GroupBy(s => s.Name).OrderBy(g => g.Key)) Console.WriteLine("{0} {1} {2:F3}", g.Key, g.Count(), g.Max(s => s.Area));
        var d = new Dictionary<string, List<int>>();
        for (int i = 0; i < 60000; i++) { string k = "k" + i % 977; List<int> l; if (!d.TryGetValue(k, out l)) d[k] = l = new List<int>(); l.Add(i * 7919 % 10007); }
        Console.WriteLine(d.OrderBy(p => p.Key, StringComparer.Ordinal).Aggregate(0L, (h, p) => h * 33 + p.Value.Sum() + p.Key.Length));
        var ps = Enumerable.Range(0, 20000).Select(i => new Point { X = i * 7919 % 101, Y = i * 104729 % 1009 }).ToArray(); Array.Sort(ps);
        Console.WriteLine(Fold(ps, 0L, (h, p) => h * 17 + p.X * 3 + p.Y));
        var sorted = new SortedDictionary<int, string>(); for (int i = 0; i < 5000; i++) sorted[i * 31 % 4999] = i.ToString(); Console.WriteLine(string.Join(",", sorted.Values.Take(12)));
        Action chain = null; int calls = 0; for (int i = 0; i < 200; i++) { int j = i; chain += () => calls += j; } chain(); Console.WriteLine(calls);
        object[] boxes = Enumerable.Range(0, 9000).Select(i => i % 2 == 0 ? (object)i : (object)(double)i).ToArray(); Console.WriteLine(boxes.OfType<int>().Sum() + boxes.OfType<double>().Sum());
        var weak = new WeakReference(new byte[100000]); Finals(); for (int i = 0; i < 3; i++) { GC.Collect(); GC.WaitForPendingFinalizers(); }
        Console.WriteLine(Final.Count > 4900);
        var jag = new List<byte[]>(); for (int i = 0; i < 300; i++) { jag.Add(new byte[i * 1000]); if (i > 0) jag[i][i * 500 % i] = (byte)i; if (i % 3 == 0) jag[i / 2] = null; } Console.WriteLine(jag.Where(x => x != null).Sum(x => x.Length));
    }
}
