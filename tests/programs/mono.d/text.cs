// Strings, regular expressions, formats, reflection, dynamic methods.
using System;
using System.Globalization;
using System.Linq;
using System.Reflection.Emit;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

static class TextWork {
    static string Md5(string s) { return string.Concat(MD5.Create().ComputeHash(Encoding.UTF8.GetBytes(s)).Select(b => b.ToString("x2"))); }
    static void Main() {
        CultureInfo.DefaultThreadCurrentCulture = CultureInfo.InvariantCulture; System.Threading.Thread.CurrentThread.CurrentCulture = CultureInfo.InvariantCulture;
        var r = new Random(5); var sb = new StringBuilder(); for (int i = 0; i < 6000; i++) { sb.Append((char)('a' + r.Next(26)), r.Next(1, 4)); if (i % 5 == 0) sb.Append(' '); if (i % 31 == 0) sb.AppendFormat("<{0:X4}|{1,8:F2}>", i, i / 7.0); }
        string s = sb.ToString(); Console.WriteLine(Md5(s));
        foreach (string re in new[] { @"(\w)\1+", @"\b[aeiou]\w*", @"<(?<hex>[0-9A-F]+)\|\s*(?<num>[\d.]+)>", @"(?<=x)y+(?!z)" })
            foreach (var o in new[] { RegexOptions.None, RegexOptions.Compiled }) { var ms = Regex.Matches(s, re, o).Cast<Match>().Select(m => m.Value).ToArray(); Console.WriteLine("{0} {1}", ms.Length, Md5(string.Join("|", ms))); }
        Console.WriteLine(Md5(Regex.Replace(s, "[a-m]+", m => m.Value.ToUpperInvariant())));
        Console.WriteLine(string.Join(" ", s.Split(' ').GroupBy(w => w.Length).OrderBy(g => g.Key).Select(g => g.Key + ":" + g.Count())));
        foreach (double d in new[] { 0.1, 1e21, 1.0 / 3, double.MaxValue, double.Epsilon, -0.0, 123456.789 }) Console.WriteLine("{0:R} {0:E4} {0:F3} {0:G6} {1}", d, double.Parse(d.ToString("R")) == d);
        Console.WriteLine(new DateTime(2024, 2, 29, 13, 14, 15, DateTimeKind.Utc).AddDays(366).ToString("o") + TimeSpan.FromSeconds(98765.4321));
        Console.WriteLine(string.Concat(SHA256.Create().ComputeHash(Encoding.Unicode.GetBytes(s)).Select(b => b.ToString("x2"))));
        var aes = Aes.Create(); aes.Key = new byte[16]; aes.IV = new byte[16]; Console.WriteLine(Md5(Convert.ToBase64String(aes.CreateEncryptor().TransformFinalBlock(Encoding.UTF8.GetBytes(s), 0, 5000))));
        long h = 0; for (int k = 1; k <= 60; k++) {
            var m = new DynamicMethod("f", typeof(int), new[] { typeof(int) }); var g = m.GetILGenerator(); g.Emit(OpCodes.Ldarg_0); for (int i = 0; i < k; i++) { g.Emit(OpCodes.Ldc_I4, i * k + 1); g.Emit(i % 2 == 0 ? OpCodes.Mul : OpCodes.Xor); } g.Emit(OpCodes.Ret);
            var f = (Func<int, int>)m.CreateDelegate(typeof(Func<int, int>)); for (int i = 0; i < 300; i++) h = h * 31 + f(i); }
        Console.WriteLine(h);
        Console.WriteLine(string.Join(",", typeof(TextWork).GetMethods(System.Reflection.BindingFlags.Static | System.Reflection.BindingFlags.NonPublic).Select(m => m.Name).OrderBy(x => x, StringComparer.Ordinal)));
    }
}
