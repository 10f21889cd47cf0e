<?php
// Loops that a compiler of traces likes: integers, floats, arrays, calls.
function fib(int $n): int { return $n < 2 ? $n : fib($n - 1) + fib($n - 2); }
function sieve(int $n): int {
    $p = array_fill(0, $n + 1, true);
    for ($i = 2; $i * $i <= $n; $i++)
        if ($p[$i]) for ($j = $i * $i; $j <= $n; $j += $i) $p[$j] = false;
    $c = 0;
    for ($i = 2; $i <= $n; $i++) $c += $p[$i] ? 1 : 0;
    return $c;
}
function mandel(int $w): string {
    $s = '';
    for ($y = 0; $y < $w; $y++) {
        for ($x = 0; $x < $w; $x++) {
            $cr = 2.0 * $x / $w - 1.5; $ci = 2.0 * $y / $w - 1.0; $zr = $zi = 0.0; $n = 0;
            while ($n < 50 && $zr * $zr + $zi * $zi < 4.0) {
                [$zr, $zi] = [$zr * $zr - $zi * $zi + $cr, 2.0 * $zr * $zi + $ci]; $n++;
            }
            $s .= chr(32 + $n);
        }
    }
    return md5($s);
}
function nbody(int $steps): float {
    $b = [[0, 0, 0, 0, 0, 0, 39.47], [4.84, -1.16, -.10, .606, 2.81, -.02, .037],
          [8.34, 4.12, -.4, -1.01, 1.82, .008, .011], [12.89, -15.1, -.22, 1.08, .868, -.01, .0017]];
    for ($k = 0; $k < $steps; $k++) {
        foreach ($b as $i => $_) for ($j = $i + 1; $j < 4; $j++) {
            $d = [$b[$i][0] - $b[$j][0], $b[$i][1] - $b[$j][1], $b[$i][2] - $b[$j][2]];
            $r = sqrt($d[0] ** 2 + $d[1] ** 2 + $d[2] ** 2); $m = 0.001 / ($r * $r * $r);
            for ($c = 0; $c < 3; $c++) {
                $b[$i][3 + $c] -= $d[$c] * $b[$j][6] * $m; $b[$j][3 + $c] += $d[$c] * $b[$i][6] * $m;
            }
        }
        foreach ($b as &$q) for ($c = 0; $c < 3; $c++) $q[$c] += 0.001 * $q[3 + $c];
        unset($q);
    }
    return array_sum(array_map(fn($q) => $q[0] * $q[3] + $q[1] * $q[4] + $q[2] * $q[5], $b));
}
function overflow(): array {
    $out = []; $x = PHP_INT_MAX - 30;
    for ($i = 0; $i < 60; $i++) { $x += 1; $out[] = is_float($x) ? sprintf('%.0f', $x) : $x; }
    $y = 3;
    for ($i = 0; $i < 60; $i++) { $y *= 3; $out[] = is_float($y) ? sprintf('%.6e', $y) : $y; }
    return $out;
}
function queens(int $n, int $row = 0, int $c = 0, int $d = 0, int $e = 0): int {
    if ($row == $n) return 1;
    $k = 0;
    for ($free = ((1 << $n) - 1) & ~($c | $d | $e); $free; $free &= $free - 1) {
        $b = $free & -$free;
        $k += queens($n, $row + 1, $c | $b, ($d | $b) << 1, ($e | $b) >> 1);
    }
    return $k;
}
var_dump(fib(22), sieve(100000), mandel(60), nbody(800), md5(implode(',', overflow())), queens(8));
