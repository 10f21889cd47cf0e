<?php
// Numbers: doubles in every digit, integers at their ends, GMP, BCMath, random generators.
foreach (['sin', 'cos', 'tan', 'exp', 'log', 'sqrt', 'atan', 'sinh', 'tanh', 'log1p', 'expm1', 'cosh', 'asinh'] as $f) {
    $s = []; for ($i = 1; $i <= 300; $i++) $s[] = bin2hex(pack('E', $f($i * 0.0371)));
    echo $f, ' ', md5(implode($s)), ' ', $s[7], "\n";
}
$a = []; for ($i = -200; $i < 200; $i++) $a[] = [fmod($i * 1.37, 0.91), round($i / 7, 3), floor($i / 3), intdiv($i * 1000003, 17), $i % 7, $i ** 3, 2 ** $i, $i <=> 3.5, $i << 3, $i >> 1];
var_dump(md5(serialize($a)), serialize($a[250]));
var_dump(PHP_INT_MAX + 1, PHP_INT_MIN % -1, 0.1 + 0.2, 1e308 * 10, -1e308 * 10, is_nan(NAN), (int)'12abc', '5' + '5.5', 7.0 / 3, 1.5e-310);
mt_srand(7); $h = hash_init('md5'); for ($i = 0; $i < 20000; $i++) hash_update($h, pack('q', mt_rand())); var_dump(hash_final($h));
$f = gmp_fact(400); var_dump(md5(gmp_strval($f)), gmp_strval(gmp_powm(3, gmp_pow(2, 300), gmp_sub(gmp_pow(2, 127), 1))), gmp_prob_prime(gmp_sub(gmp_pow(2, 521), 1)));
var_dump(md5(bcpow('1.000123', '700', 200)), bcsqrt('2', 120));
$m = []; for ($i = 0; $i < 40; $i++) for ($j = 0; $j < 40; $j++) $m[$i][$j] = sin($i * 40 + $j);
for ($r = 0; $r < 2; $r++) { $n = []; for ($i = 0; $i < 40; $i++) for ($j = 0; $j < 40; $j++) { $s = 0.0; for ($k = 0; $k < 40; $k++) $s += $m[$i][$k] * $m[$k][$j]; $n[$i][$j] = $s; } $m = $n; }
var_dump(md5(serialize($m)), $m[3][5]);
for ($i = 0; $i < 30; $i++) echo number_format(10 ** ($i / 3 - 4), 6), ' ', base_convert((string)($i * 7919 + 1), 10, 36), ' ', var_export(1 / ($i + 3), true), "\n";
