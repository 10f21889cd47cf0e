<?php
// Warnings, uncaught conversions, deep recursion and what a compiler must bail out of.
set_error_handler(function ($no, $text, $file, $line) { static $n = 0; if ($n++ < 40) echo "[$no] $text at $line\n"; return true; });
function f($a, $i) { return $a[$i] + $a['none'] + $undefined; }
for ($i = 0; $i < 12; $i++) echo f([1, 2, 3], $i), "\n";
function types(int|string $x) { return $x; }
foreach ([1, '2', 3.0, null, [], 4.5, true] as $v) { try { var_dump(types($v)); } catch (TypeError $e) { echo preg_replace('/, called.*/', '', $e->getMessage()), "\n"; } }
function mixed($x) { $s = 0; foreach ($x as $v) { try { $s += $v; } catch (TypeError $e) { $s -= 1; } } return $s; }
$d = [1, 2.5, '3', null, true, '4x', [], 1 << 62, '1e3'];
for ($i = 0; $i < 50; $i++) $r = mixed(array_merge(array_slice($d, $i % 9), $d));
var_dump($r);
function depth($n) { return $n ? 1 + depth($n - 1) : 0; }
var_dump(depth(20000));
try { (function () { (function () { throw new LogicException('inner', 7); })(); })(); } catch (LogicException $e) { echo get_class($e), $e->getCode(), ' ', count($e->getTrace()), "\n"; }
try { try { throw new Exception('a'); } finally { throw new RuntimeException('b'); } } catch (Exception $e) { echo $e->getMessage(), $e->getPrevious()->getMessage(), "\n"; }
$s = 'abc'; try { $s[] = 'x'; } catch (Error $e) { echo $e->getMessage(), "\n"; }
for ($i = 0; $i < 300; $i++) { $x = $i < 250 ? $i : "s$i"; $y = is_int($x) ? $x * 2 : strlen($x); } var_dump($y);
register_shutdown_function(function () { echo "shut down\n"; });
