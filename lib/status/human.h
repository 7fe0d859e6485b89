/* SPDX-License-Identifier: MIT
 *
 * Numbers and names as people read them. Pure functions, thread-safe, no allocation. */
#ifndef STATUS_HUMAN_H
#define STATUS_HUMAN_H

#include <stddef.h>
#include <stdint.h>

#define HUMAN_CAPACITY 32

/* "512 B", "1.5 MiB", "40.0 GiB". out holds at least HUMAN_CAPACITY bytes. Returns out. */
const char *human_bytes(char *out, uint64_t bytes);
/* "1.92 GB/s": decimal units, as storage and links are rated. Returns out. */
const char *human_rate(char *out, double bytes_per_second);
/* "45 s", "3 min 20 s", "2 h 05 min". Returns out. */
const char *human_duration(char *out, double seconds);
/* done as a percentage of total, rounded down so that 100 means all; 100 when total is 0. */
unsigned human_percent(uint64_t done, uint64_t total);
/* A bar of `width` characters between brackets: "[####....]". Needs width + 3 bytes; cut to what
 * capacity allows. Returns out. */
const char *human_bar(char *out, size_t capacity, unsigned width, uint64_t done, uint64_t total);
/* Columns that a UTF-8 string takes when every character takes one. */
size_t human_columns(const char *string);
/* Where to start printing a string so that it takes at most `columns`: names of shards differ at
 * their ends, so it is the beginning that goes. */
const char *human_tail(const char *string, size_t columns);

#endif
