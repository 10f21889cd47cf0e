// Integers, floats, arrays, checked arithmetic, big numbers.
using System;
using System.Numerics;

static class Compute {
    static int Fib(int n) { return n < 2 ? n : Fib(n - 1) + Fib(n - 2); }
    static long Hash(double d) { return BitConverter.DoubleToInt64Bits(d); }

    static long Matrix(int n) {
        var a = new double[n, n]; var b = new double[n][]; var c = new double[n, n];
        for (int i = 0; i < n; i++) { b[i] = new double[n]; for (int j = 0; j < n; j++) { a[i, j] = Math.Sin(i * n + j); b[i][j] = 1.0 / (i + j + 1); } }
        for (int i = 0; i < n; i++) for (int j = 0; j < n; j++) { double s = 0; for (int k = 0; k < n; k++) s += a[i, k] * b[k][j]; c[i, j] = s; }
        long h = 0; foreach (double d in c) h = h * 31 + Hash(d); return h;
    }
    static int Sieve(int n) {
        var p = new bool[n + 1]; int c = 0;
        for (int i = 2; i <= n; i++) { if (p[i]) continue; c++; for (long j = (long)i * i; j <= n; j += i) p[j] = true; }
        return c;
    }
    static string Checked() {
        int n = 0; long l = 1; var s = "";
        for (int i = 0; i < 200; i++) {
            try { n += checked((int)(l % 5000000000)); l *= 7; } catch (OverflowException) { s += i + ","; l = l % 1000 + 1; }
            try { s += checked((byte)(i * 3)) > 250 ? "!" : ""; } catch (OverflowException) { if (i % 50 == 0) s += "b" + i; }
        }
        return s + n;
    }
    static string Divide() {
        var s = "";
        foreach (int d in new[] { 3, -1, 0, 7 }) foreach (int n in new[] { int.MinValue, 10, -7 })
            try { s += n / d + ":" + n % d + " "; } catch (Exception e) { s += e.GetType().Name + " "; }
        return s;
    }
    static string Casts() {
        var s = "";
        foreach (double d in new[] { 1.9, -1.9, 4e9, -3e9, 1e18, 0.5, 123456789.999 })
            s += (long)d + "," + unchecked((uint)(long)d) + "," + (float)d + "," + Math.Round(d) + "," + Math.Floor(d) + " ";
        return s;
    }
    static long Floats() {
        long h = 0; float f = 1.0f; decimal m = 1.1m;
        for (int i = 1; i < 20000; i++) { f = f * 1.0001f + 1.0f / i; h = h * 33 + Hash(Math.Exp(i % 300 / 7.0) + Math.Pow(i, 0.3) + Math.Atan2(i, 7) + f); }
        for (int i = 0; i < 60; i++) m = m * 1.3m / 1.01m;
        Console.WriteLine(m); return h;
    }
    static void Main() {
        Console.WriteLine(Fib(27)); Console.WriteLine(Matrix(70)); Console.WriteLine(Sieve(600000));
        Console.WriteLine(Checked()); Console.WriteLine(Divide()); Console.WriteLine(Casts()); Console.WriteLine(Floats());
        BigInteger b = 1; for (int i = 2; i < 300; i++) b *= i;
        Console.WriteLine(b % BigInteger.Pow(7, 90)); Console.WriteLine(BigInteger.ModPow(3, BigInteger.Pow(2, 300), b + 1).ToString("X").GetHashCode() != 0);
        ulong x = 88172645463325252; uint c = 0; for (int i = 0; i < 1000000; i++) { x ^= x << 13; x ^= x >> 7; x ^= x << 17; c += (uint)(x >> 33) % 1000; }
        Console.WriteLine("{0} {1}", x, c);
    }
}
