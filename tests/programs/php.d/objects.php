<?php
// Objects, closures, generators, exceptions, references, collection of cycles.
interface Shape { function area(): float; }
abstract class Base implements Shape { public static int $made = 0; function __construct() { self::$made++; } }
final class Circle extends Base { function __construct(public readonly float $r) { parent::__construct(); } function area(): float { return M_PI * $this->r ** 2; } }
final class Box extends Base { function __construct(private float $w, private float $h) { parent::__construct(); } function area(): float { return $this->w * $this->h; } function __get($n) { return "no $n"; } }
enum Suit: string { case Hearts = 'H'; case Spades = 'S'; static function of(int $i): self { return $i % 2 ? self::Hearts : self::Spades; } }
$sum = 0.0;
for ($i = 1; $i < 4000; $i++) { $s = $i % 3 ? new Circle($i / 7) : new Box($i, 2.5); $sum += $s->area(); }
var_dump($sum, Base::$made, (new Box(1, 2))->nothing);
function gen(int $n) { for ($i = 0; $i < $n; $i++) { $got = yield $i => $i * $i; if ($got) yield 'got' => $got; } return 'end'; }
$t = 0; $g = gen(3000);
foreach ($g as $k => $v) $t += (int)$v;
var_dump($t, $g->getReturn());
$g = gen(5); $g->current(); var_dump($g->send('hello'));
$fs = [];
for ($i = 0; $i < 500; $i++) $fs[] = fn(int $x) => $x * $i + 1;
$x = 1; foreach ($fs as $f) $x = $f($x) % 1000003; var_dump($x);
function thrower(int $i) { try { if ($i % 3 == 0) throw new DomainException("d$i"); if ($i % 5 == 0) intdiv(1, 0); return $i; } finally { $GLOBALS['fin'] = ($GLOBALS['fin'] ?? 0) + 1; } }
$c = ['ok' => 0];
for ($i = 1; $i < 3000; $i++) { try { $c['ok'] += thrower($i); } catch (DomainException | DivisionByZeroError $e) { $k = get_class($e); $c[$k] = ($c[$k] ?? 0) + 1; } }
var_dump($c, $fin);
class Node { public $other; public $pad; }
for ($i = 0; $i < 20000; $i++) { $a = new Node; $b = new Node; $a->other = $b; $b->other = $a; $a->pad = str_repeat('x', 50); }
unset($a, $b); gc_collect_cycles(); var_dump(gc_status()['runs'] > 0);
$n = 0; for ($i = 0; $i < 2000; $i++) { $n += match (Suit::of($i)) { Suit::Hearts => 1, Suit::Spades => 10 }; } var_dump($n);
$arr = range(1, 2000); foreach ($arr as &$r) $r *= 2; unset($r); var_dump(array_sum($arr));
$fiber = new Fiber(function () { $s = 0; for ($i = 0; $i < 1000; $i++) $s += Fiber::suspend($i); return $s; });
$v = $fiber->start(); while (!$fiber->isTerminated()) $v = $fiber->resume($v ?? 0); var_dump($fiber->getReturn());
