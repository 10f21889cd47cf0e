/*
 * The date: from the real-time clock once, at the start, and from there by the TSC;
 * gmtime_r() and timegm(), which the guest's clock is made with. The clock is taken to go
 * by UTC and to be in this century.
 */
#include <time.h>

#include "bare/bare_int.h"
#include "base/os.h"

#define DAY 86400

static uint64_t at_start; /* nanoseconds since 1970 when os_monotonic_ns() was 0 */

/* Days from 1970 to the first of March of YEAR: there a year's days are regular. */
static int64_t days_to_march(int64_t year) {
    return year * 365 + year / 4 - year / 100 + year / 400 - 719468;
}

/* Days from the first of March to the first of MONTH, which counts from March on. */
static int days_to_month(int month) {
    return (153 * month + 2) / 5;
}

time_t timegm(struct tm *t) {
    int64_t year = t->tm_year + 1900 - (t->tm_mon < 2);
    int month = (t->tm_mon + 10) % 12;
    int64_t days = days_to_march(year) + days_to_month(month) + t->tm_mday - 1;

    return ((days * 24 + t->tm_hour) * 60 + t->tm_min) * 60 + t->tm_sec;
}

struct tm *gmtime_r(const time_t *restrict when, struct tm *restrict t) {
    int64_t days = *when / DAY, rest = *when % DAY, year;
    int month = 0;

    if (rest < 0) {
        rest += DAY;
        days--;
    }
    year = (days + 719468) * 400 / 146097;
    while (days_to_march(year + 1) <= days)
        year++;
    while (days_to_march(year) > days)
        year--;
    *t = (struct tm){.tm_hour = (int)(rest / 3600),
                     .tm_min = (int)(rest / 60 % 60),
                     .tm_sec = (int)(rest % 60),
                     .tm_wday = (int)(((days + 4) % 7 + 7) % 7)};
    days -= days_to_march(year);
    while (month < 11 && days_to_month(month + 1) <= days)
        month++;
    t->tm_mday = (int)(days - days_to_month(month)) + 1;
    t->tm_mon = (month + 2) % 12;
    t->tm_year = (int)(year + (month >= 10)) - 1900;
    return t;
}

/* --- the real-time clock --- */

static uint8_t cmos(uint8_t reg) {
    bare_out(0x70, reg);
    return bare_in(0x71);
}

static int number(uint8_t reg, bool binary) {
    uint8_t b = cmos(reg);

    return binary ? b : (b >> 4) * 10 + (b & 15);
}

static uint64_t read_clock(void) {
    bool binary = cmos(0xb) & 4;
    struct tm t;

    for (unsigned n = 0; n < 1000000 && cmos(0xa) & 0x80; n++)
        ;
    t = (struct tm){.tm_sec = number(0, binary),
                    .tm_min = number(2, binary),
                    .tm_hour = number(4, binary),
                    .tm_mday = number(7, binary),
                    .tm_mon = number(8, binary) - 1,
                    .tm_year = number(9, binary) + 100};
    return (uint64_t)timegm(&t) * 1000000000u;
}

uint64_t os_realtime_ns(void) {
    if (!at_start)
        at_start = read_clock() - os_monotonic_ns();
    return at_start + os_monotonic_ns();
}
