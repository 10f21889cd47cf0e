use strict;
use warnings;
my $seed = 1;
sub number { $seed = ($seed * 1103515 + 12345) % 2**31; return int($seed / 256) % $_[0]; }
my (%count, @lines);
for my $i (1 .. 40000) {
    my $line = join ' ', map { 'w' . number(500) } 1 .. 8;
    push @lines, $line;
    $count{$_}++ for split / /, $line;
}
my @top = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 2];
print "@top\n";
my ($found, $changed) = (0, 0);
for my $line (@lines) {
    $found += $1 while $line =~ /\bw(\d)7\b/g;
    $changed += $line =~ s/(w1\d*) (w2\d*)/$2 $1/g || 0;
}
print "$found $changed\n";
my $text = join "\n", sort @lines;
print length($text), ' ', unpack('%32C*', $text), "\n";
printf "%s\n", join ',', map { sprintf '%04x', $_ } (unpack 'n*', substr $text, 0, 20);
