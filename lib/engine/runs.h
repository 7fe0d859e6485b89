/* SPDX-License-Identifier: MIT
 *
 * Which stretch of a file each reader works on. A reader takes a run of neighbouring chunks and
 * reads them one after the other, so that storage sees as many sequential streams as there are
 * readers, each on a handle of its own. Others leave its run to it as long as there is anything
 * else to do; when there is not, they take from the end of the longest one.
 *
 * A run is a hint for who comes next, nothing more: whether a chunk is still to be fetched says
 * `wanted`.
 *
 * Not thread-safe: the engine's lock protects it. Nothing blocks.
 */
#ifndef ENGINE_RUNS_H
#define ENGINE_RUNS_H

#include <stdbool.h>
#include <stdint.h>

struct run {
    uint32_t file, next, end; /* chunks [next, end) are to come; none: there is no run */
    uint32_t view;            /* that it was found along */
    uint64_t offset;          /* ... and where its first chunk stands in it */
    uint32_t stream;          /* number of the reader's stream that it is for; 0: of the plan */
};

/* The runs of `count` readers, by their numbers. */
struct runs {
    struct run *runs; /* the owner's */
    unsigned count;
};

static inline bool run_is_over(const struct run *run)
{
    return run->next >= run->end;
}

/* Where the first chunk from `index` on is that is in no run of others than reader `self`; at most
 * `end`. Who fetches for a stream leaves only what others fetch for streams. */
uint32_t runs_skip(const struct runs *runs, unsigned self, bool for_stream, uint32_t file,
                   uint32_t index, uint32_t end);
/* Shortens the longest run of others than `self` by its last chunk, for who has nothing else to do:
 * true with that chunk. plan: runs that are for the plan count, too. */
bool runs_steal(struct runs *runs, unsigned self, bool plan, struct run *out);
/* There are chunks left in a run. */
bool runs_have_more(const struct runs *runs);
/* Ends every run in a file. */
void runs_end_file(struct runs *runs, uint32_t file);

#endif
