/* SPDX-License-Identifier: MIT */
#include "fs/cli/progress.h"
#include "fs/cli/terminal.h"
#include "unshard.h"

#include <string.h>
#include <time.h>

#define PLAIN_INTERVAL 5.0

double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void progress_begin(struct progress_line *line, FILE *stream)
{
    double now = monotonic_seconds();
    *line = (struct progress_line){.stream = stream, .started = now, .last = now};
}

static double rate_since(const struct progress_line *line, double now, uint64_t done)
{
    double elapsed = now - line->started;
    return elapsed > 0.05 ? (double)done / elapsed : 0;
}

static void draw_line(struct progress_line *line, unsigned columns, const char *what, uint64_t done,
                      uint64_t total, double rate)
{
    char bar[64], done_text[UNSHARD_HUMAN_CAPACITY], total_text[UNSHARD_HUMAN_CAPACITY],
        rate_text[UNSHARD_HUMAN_CAPACITY];
    char figures[192];
    unsigned width = columns > 100 ? 30 : columns > 60 ? columns / 4 : 8;
    snprintf(figures, sizeof figures, "%s %3u %%  %s of %s  %s  ",
             unshard_human_bar(bar, sizeof bar, width, done, total),
             unshard_human_percent(done, total), unshard_human_bytes(done_text, done),
             unshard_human_bytes(total_text, total), unshard_human_rate(rate_text, rate));
    size_t taken = strlen(figures);
    size_t left = columns > taken + 1 ? columns - taken - 1 : 0;
    /* A line that just fits would scroll: one column stays free. */
    fprintf(line->stream, "\r%.*s%s\033[K", (int)(columns - 1), figures,
            unshard_human_tail(what, left));
    line->drawn = true;
}

void progress_show(struct progress_line *line, const char *what, uint64_t done, uint64_t total)
{
    char quoted[1100], done_text[UNSHARD_HUMAN_CAPACITY], total_text[UNSHARD_HUMAN_CAPACITY];
    char rate_text[UNSHARD_HUMAN_CAPACITY];
    double now = monotonic_seconds(), rate = rate_since(line, now, done);
    unsigned columns = terminal_columns(line->stream);
    unshard_printable(quoted, sizeof quoted, what, strlen(what));
    if (columns > 1 && terminal_takes_escapes(line->stream)) {
        draw_line(line, columns, quoted, done, total, rate);
    } else if (now - line->last >= PLAIN_INTERVAL) {
        line->last = now;
        fprintf(line->stream, "%s of %s (%u %%), %s, %s\n", unshard_human_bytes(done_text, done),
                unshard_human_bytes(total_text, total), unshard_human_percent(done, total),
                unshard_human_rate(rate_text, rate), quoted);
    }
    fflush(line->stream);
}

void progress_end(struct progress_line *line)
{
    if (line->drawn)
        fputs("\r\033[K", line->stream);
    line->drawn = false;
    fflush(line->stream);
}
