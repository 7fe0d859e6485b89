/* SPDX-License-Identifier: MIT
 *
 * Pages of views that the engine keeps in its own memory for a while:
 * - seams: pages whose bytes come from more than one chunk, until all pieces are there;
 * - sentinels: complete pages held back from the page cache, so that the read for one tells that a
 *   reader passes.
 * What is held of a file is forgotten before the file begins anew (file_gate.c), so that all of a
 * page is of the contents of now. Bounded: when it is full the oldest page is dropped, and a read
 * of it takes the ordinary way. Thread-safe; never blocks but on its own lock.
 */
#ifndef ENGINE_HELD_PAGES_H
#define ENGINE_HELD_PAGES_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HELD_PAGE_BYTES 4096U
/* What a page costs while it is held, at most. */
#define HELD_PAGE_COST 5120U

struct held_page;
struct held_pages {
    pthread_mutex_t lock;
    struct held_page **buckets; /* hash of (view, page) */
    size_t bucket_count;
    struct held_page *oldest, *newest;
    size_t count, limit; /* pages */
};

/* limit: most pages to hold. 0 or -ENOMEM. */
int held_pages_init(struct held_pages *held, size_t limit);
void held_pages_free(struct held_pages *held);
/* Another limit; what is held beyond it goes as new pages come, the oldest first.
 * Takes no lock. */
void held_pages_set_limit(struct held_pages *held, size_t limit);

/* Adds bytes [offset, offset + length) of a page that needs `needed` bytes in all (less than a page
 * only at the end of a view). Returns true when the page is complete by that: it is then copied to
 * out (HELD_PAGE_BYTES), and stays in the table until it is forgotten. Adding the same bytes twice
 * is allowed. */
bool held_pages_add(struct held_pages *held, uint32_t view, uint64_t page, uint32_t offset,
                    const void *bytes, uint32_t length, uint32_t needed, char *out);

/* What is held of a page: copies its bytes [*from, *to) to their place in out, true. Of a page that
 * is not complete this is the first run of bytes. A complete one is taken out of the table when
 * what it is for goes to the page cache (cached); else it stays. */
bool held_pages_take(struct held_pages *held, uint32_t view, uint64_t page, bool cached,
                     uint32_t *from, uint32_t *to, char *out);
/* Drops the pages first..last of a view, if they are held. O(pages), or O(held pages) where these
 * are fewer. */
void held_pages_forget_range(struct held_pages *held, uint32_t view, uint64_t first, uint64_t last);
/* Drops every page of a view: the kernel has forgotten it. */
void held_pages_forget(struct held_pages *held, uint32_t view);
/* Nothing is held: a cheap answer without the lock, exact enough to skip looking. */
bool held_pages_empty(const struct held_pages *held);

#endif
