/* SPDX-License-Identifier: MIT */
#include "unshard.h"

#include <stdio.h>
#include <string.h>

const char *unshard_human_bytes(char *out, uint64_t bytes)
{
    static const char units[][4] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(out, UNSHARD_HUMAN_CAPACITY, "%u B", (unsigned)bytes);
        return out;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    /* 1023.95 would be printed as 1024.0 of the smaller unit. */
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(out, UNSHARD_HUMAN_CAPACITY, "%.1f %s", value, units[unit]);
    return out;
}

const char *unshard_human_rate(char *out, double bytes_per_second)
{
    static const char units[][5] = {"B/s", "kB/s", "MB/s", "GB/s", "TB/s"};
    double value = bytes_per_second > 0 ? bytes_per_second : 0;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1000;
        unit++;
    }
    snprintf(out, UNSHARD_HUMAN_CAPACITY, "%.*f %s", unit >= 3 ? 2 : 0, value, units[unit]);
    return out;
}

const char *unshard_human_duration(char *out, double seconds)
{
    if (!(seconds > 0))
        seconds = 0;
    if (seconds > 1e9)
        seconds = 1e9;
    uint64_t whole = (uint64_t)(seconds + 0.5);
    unsigned hours = (unsigned)(whole / 3600), minutes = (unsigned)(whole / 60 % 60);
    if (hours > 0)
        snprintf(out, UNSHARD_HUMAN_CAPACITY, "%u h %02u min", hours, minutes);
    else if (minutes > 0)
        snprintf(out, UNSHARD_HUMAN_CAPACITY, "%u min %02u s", minutes, (unsigned)(whole % 60));
    else
        snprintf(out, UNSHARD_HUMAN_CAPACITY, "%u s", (unsigned)whole);
    return out;
}

unsigned unshard_human_percent(uint64_t done, uint64_t total)
{
    if (done >= total)
        return 100;
    return (unsigned)((unsigned __int128)done * 100 / total);
}

const char *unshard_human_bar(char *out, size_t capacity, unsigned width, uint64_t done,
                              uint64_t total)
{
    if (capacity < 3) {
        if (capacity > 0)
            out[0] = '\0';
        return out;
    }
    size_t cells = width < capacity - 3 ? width : capacity - 3;
    size_t filled =
        done >= total ? cells : (size_t)((unsigned __int128)done * (unsigned)cells / total);
    out[0] = '[';
    memset(out + 1, '#', filled);
    memset(out + 1 + filled, '.', cells - filled);
    out[1 + cells] = ']';
    out[2 + cells] = '\0';
    return out;
}

static int starts_character(char byte)
{
    return ((unsigned char)byte & 0xC0) != 0x80;
}

size_t unshard_human_columns(const char *string)
{
    size_t columns = 0;
    for (; *string; string++)
        columns += (size_t)starts_character(*string);
    return columns;
}

const char *unshard_human_tail(const char *string, size_t columns)
{
    size_t skip = unshard_human_columns(string);
    skip = skip > columns ? skip - columns : 0;
    while (*string && (skip > 0 || !starts_character(*string))) {
        if (starts_character(*string)) {
            skip--;
        }
        string++;
    }
    return string;
}
