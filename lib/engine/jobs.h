/* SPDX-License-Identifier: MIT
 *
 * How many reads storage is given at a time. Storage with latency, and storage that is fast per
 * stream, wants many; what comes out of memory wants as many as there are processors to copy it
 * beside those that store and load, and every further one costs time. So the count starts high
 * enough for the former, and moves by what storage gives: more are kept when they bring a tenth
 * more, fewer when they lose nothing. While reads come out of memory only a few are made.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_JOBS_H
#define ENGINE_JOBS_H

#include <stdbool.h>
#include <stdint.h>

#define JOBS_MOST 256U /* that may be asked for */

struct jobs {
    unsigned fixed;       /* what was asked for; 0: found out */
    unsigned current;     /* for storage */
    unsigned most;        /* of current */
    unsigned for_memory;  /* what there are processors for */
    unsigned memory_runs; /* how sure it is that reads come out of memory: 0 to 8 */
    unsigned trial_from;  /* the count that a running trial is compared with; 0: none */
    double trial_rate;
    uint64_t epoch_start_ns, epoch_bytes, hold_until_ns;
    unsigned epoch_reads;
    bool try_fewer, starved; /* starved: work ran out within the epoch, so it says nothing */
};

/* fixed: 0, or how many. most: as many as there is room for. processors: that there are. */
void jobs_init(struct jobs *jobs, unsigned fixed, unsigned most, unsigned processors,
               uint64_t now_ns);
/* How many reads may run now. */
unsigned jobs_allowed(const struct jobs *jobs);
/* Reads come out of memory these days. */
bool jobs_read_memory(const struct jobs *jobs);
/* A read has ended, which brought so many bytes: from storage, or out of memory. */
void jobs_note_read(struct jobs *jobs, uint64_t bytes, bool from_memory);
/* There was nothing to read though another read was allowed. */
void jobs_note_starved(struct jobs *jobs);
/* Now and then: changes the count when enough reads have told. */
void jobs_adapt(struct jobs *jobs, uint64_t now_ns);

#endif
