// Exceptions: null references and overflows that arrive as signals, filters, finally, deep unwinding.
using System;

class Thing { public int A; public long[] Big = new long[4]; public virtual int F() { return A; } }
class Custom : Exception { public Custom(string s, Exception inner) : base(s, inner) { } }

static class Faults {
    static int trail;
    static int Touch(Thing t) { return t.A; }
    static int Call(Thing t) { return t.F(); }
    static long Index(long[] a, int i) { return a[i]; }
    static int Deep(int n, Thing t) { try { return n == 0 ? Touch(t) : Deep(n - 1, t) + 1; } finally { trail++; } }
    static bool Filter(Exception e, string s) { trail += 3; return e.GetType().Name == s; }
    static string Try(Func<object> f) { try { return f().ToString(); } catch (Exception e) when (Filter(e, "InvalidCastException")) { return "cast!"; } catch (Exception e) { return e.GetType().Name; } }

    static void Main() {
        int nulls = 0;
        for (int i = 0; i < 3000; i++) {
            try { nulls += i % 3 == 0 ? Touch(null) : i % 3 == 1 ? Call(null) : (int)Index(null, i); } catch (NullReferenceException) { nulls++; }
        }
        Console.WriteLine(nulls);
        object o = "text"; int zero = nulls - 3000;
        Console.WriteLine(Try(() => (Thing)o)); Console.WriteLine(Try(() => 1 / zero)); Console.WriteLine(Try(() => int.MinValue / (zero - 1)));
        Console.WriteLine(Try(() => new int[zero - 1])); Console.WriteLine(Try(() => new int[3][2])); Console.WriteLine(Try(() => Index(new long[2], 2)));
        Console.WriteLine(Try(() => int.Parse("x1"))); Console.WriteLine(Try(() => checked(int.MaxValue + trail + 1))); Console.WriteLine(Try(() => { object[] a = new string[1]; a[0] = new Thing(); return a; }));
        Console.WriteLine(Try(() => Enum.Parse(typeof(DayOfWeek), "Nopeday"))); Console.WriteLine(Try(() => ((string)null).Length)); Console.WriteLine(Try(() => 1.0 / zero));
        for (int i = 0; i < 40; i++) try { Deep(i * 5, null); } catch (NullReferenceException) { trail += 100; }
        Console.WriteLine(trail);
        try { try { throw new Custom("outer", new ArgumentException("inner")); } finally { trail = 1; } } catch (Custom e) { Console.WriteLine(e.Message + e.InnerException.Message + trail); }
        int caught = 0; for (int i = 0; i < 20000; i++) try { if (i % 2 == 0) throw new InvalidOperationException(); caught += 2; } catch (InvalidOperationException) { caught++; } Console.WriteLine(caught);
        try { Recurse(0); } catch (StackOverflowException) { Console.WriteLine("overflow"); } catch (InsufficientExecutionStackException) { Console.WriteLine("stack"); }
        unsafeLike();
    }
    static int Recurse(int n) { System.Runtime.CompilerServices.RuntimeHelpers.EnsureSufficientExecutionStack(); return n > 3000 ? n : Recurse(n + 1) + 1; }
    static void unsafeLike() { var g = System.Runtime.InteropServices.Marshal.AllocHGlobal(64); for (int i = 0; i < 8; i++) System.Runtime.InteropServices.Marshal.WriteInt64(g, i * 8, i * 0x0101010101010101L); Console.WriteLine(System.Runtime.InteropServices.Marshal.ReadInt32(g, 29)); System.Runtime.InteropServices.Marshal.FreeHGlobal(g); }
}
