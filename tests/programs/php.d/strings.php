<?php
// Strings, regular expressions (PCRE has a compiler of its own), hashes, sorting, formats.
mt_srand(42);
$words = [];
for ($i = 0; $i < 4000; $i++) { $w = ''; for ($j = mt_rand(2, 9); $j--;) $w .= chr(97 + mt_rand(0, 25)); $words[] = $w; }
$text = implode(' ', $words);
var_dump(md5($text), crc32($text), hash('sha256', $text), hash('xxh3', $text), hash('whirlpool', $text), hash('crc32c', $text));
foreach (['/\b(\w)\w*\1\b/', '/[aeiou]{2,}/', '/(?<=q)\w+/', '/(?:(\w)(\w)\s)\w*\2/', '/^.{100}(.*?)z/s', '/\b\w{3,4}?(?=[xyz])/'] as $re) {
    var_dump(preg_match_all($re, $text, $m), md5(serialize($m)));
}
var_dump(md5(preg_replace_callback('/[a-m]+/', fn($m) => strtoupper(strrev($m[0])), $text)));
sort($words); var_dump(md5(implode($words)));
usort($words, fn($a, $b) => strlen($a) <=> strlen($b) ?: strcmp($b, $a)); var_dump(md5(implode($words)));
$count = array_count_values(str_split($text)); ksort($count); var_dump(json_encode($count));
var_dump(md5(serialize(json_decode(json_encode(['a' => $words, 'b' => [1.5, null, true, "\u{1F600}"]]), true))));
var_dump(similar_text(substr($text, 0, 400), substr($text, 400, 400)), levenshtein('kitten sitting on', 'sitting kitten in'), soundex('Robert'), metaphone('Thompson'));
for ($i = 0; $i < 40; $i++) printf("%'*12s|%-8d|%+.3e|%x|%b\n", substr($words[$i], 0, 7), $i * 7919, $i ** 9.5, $i * 65537, $i);
var_dump(md5(base64_encode(gzip_like($text))), strlen(str_replace(['a', 'e'], ['AA', ''], $text)), ucwords(substr($text, 0, 60)), wordwrap(substr($text, 0, 200), 40, "\n", true));
function gzip_like(string $s): string { $o = ''; foreach (str_split($s, 3) as $c) $o .= pack('nC', strlen($c) * 257, ord($c[0])); return $o; }
var_dump(mb_strtoupper('straße żółć ÿ'), mb_substr('日本語テキスト', 2, 3), mb_convert_encoding('日本', 'EUC-JP', 'UTF-8') === "\xc6\xfc\xcb\xdc", mb_detect_encoding("\xe4\xf6", ['UTF-8', 'ISO-8859-1']));
