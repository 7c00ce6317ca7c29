# Sleeps by select, by itself and with a handle on which nothing comes.
use strict;
$| = 1;
my $number = 0;
print "over 0\n";
while (1) {
    select(undef, undef, undef, 12);
    print "over ", ++$number, "\n";
    vec(my $handles = "", fileno(STDIN), 1) = 1;
    my $ready = select($handles, undef, undef, 5.5);
    exit if $ready;
    print "over ", ++$number, "\n";
}
