/* SPDX-License-Identifier: MIT */
#include "engine/held_pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct held_page {
    struct held_page *chain;         /* in its bucket */
    struct held_page *older, *newer; /* by age */
    uint64_t page;
    uint32_t view, needed, filled;
    uint8_t have[HELD_PAGE_BYTES / 8]; /* a bit for each byte that is there */
    char data[HELD_PAGE_BYTES];
};

#define BUCKETS 65536U

int held_pages_init(struct held_pages *held, size_t limit)
{
    *held = (struct held_pages){.bucket_count = BUCKETS, .limit = limit};
    held->buckets = calloc(BUCKETS, sizeof *held->buckets);
    if (held->buckets == NULL)
        return -ENOMEM;
    pthread_mutex_init(&held->lock, NULL);
    return 0;
}

void held_pages_set_limit(struct held_pages *held, size_t limit)
{
    __atomic_store_n(&held->limit, limit, __ATOMIC_RELAXED);
}

void held_pages_free(struct held_pages *held)
{
    if (held->buckets == NULL)
        return;
    for (struct held_page *page = held->oldest, *next; page != NULL; page = next) {
        next = page->newer;
        free(page);
    }
    free(held->buckets);
    pthread_mutex_destroy(&held->lock);
    held->buckets = NULL;
}

static struct held_page **find(struct held_pages *held, uint32_t view, uint64_t page)
{
    uint64_t hash = (page ^ ((uint64_t)view << 40)) * UINT64_C(0x9E3779B97F4A7C15);
    struct held_page **slot = &held->buckets[(hash >> 32) & (held->bucket_count - 1)];
    while (*slot != NULL && ((*slot)->page != page || (*slot)->view != view))
        slot = &(*slot)->chain;
    return slot;
}

/* Takes the page in *slot out of bucket and age list and frees it. Caller holds the lock. */
static void drop(struct held_pages *held, struct held_page **slot)
{
    struct held_page *page = *slot;
    if (page == NULL)
        return;
    *slot = page->chain;
    *(page->older != NULL ? &page->older->newer : &held->oldest) = page->newer;
    *(page->newer != NULL ? &page->newer->older : &held->newest) = page->older;
    __atomic_store_n(&held->count, held->count - 1, __ATOMIC_RELAXED);
    free(page);
}

/* Makes an empty page, dropping the oldest when the table is full. NULL when memory is short. */
static struct held_page *insert(struct held_pages *held, uint32_t view, uint64_t number,
                                uint32_t needed)
{
    size_t limit = __atomic_load_n(&held->limit, __ATOMIC_RELAXED);
    while (held->count >= limit && held->oldest != NULL)
        drop(held, find(held, held->oldest->view, held->oldest->page));
    struct held_page *page = malloc(sizeof *page);
    if (page == NULL)
        return NULL;
    *page = (struct held_page){.page = number, .view = view, .needed = needed};
    struct held_page **slot = find(held, view, number);
    page->chain = NULL;
    *slot = page;
    page->older = held->newest;
    *(held->newest != NULL ? &held->newest->newer : &held->oldest) = page;
    held->newest = page;
    __atomic_store_n(&held->count, held->count + 1, __ATOMIC_RELAXED);
    return page;
}

static void fill(struct held_page *page, uint32_t offset, const char *bytes, uint32_t length)
{
    memcpy(page->data + offset, bytes, length);
    if (length == page->needed) {
        page->filled = page->needed;
        return;
    }
    for (uint32_t i = offset; i < offset + length; i++) {
        uint8_t bit = (uint8_t)(1U << (i % 8));
        page->filled += (page->have[i / 8] & bit) == 0;
        page->have[i / 8] |= bit;
    }
}

bool held_pages_add(struct held_pages *held, uint32_t view, uint64_t number, uint32_t offset,
                    const void *bytes, uint32_t length, uint32_t needed, char *out)
{
    bool complete = false;
    pthread_mutex_lock(&held->lock);
    struct held_page *page = *find(held, view, number);
    if (page == NULL)
        page = insert(held, view, number, needed);
    if (page != NULL) {
        fill(page, offset, bytes, length);
        complete = page->filled >= page->needed;
        if (complete)
            memcpy(out, page->data, HELD_PAGE_BYTES);
    }
    pthread_mutex_unlock(&held->lock);
    return complete;
}

static bool has_byte(const struct held_page *page, uint32_t at)
{
    return (page->have[at / 8] >> (at % 8) & 1) != 0;
}

static void first_run(const struct held_page *page, uint32_t *from, uint32_t *to)
{
    *from = 0;
    while (*from < page->needed && !has_byte(page, *from))
        ++*from;
    *to = *from;
    while (*to < page->needed && has_byte(page, *to))
        ++*to;
}

bool held_pages_take(struct held_pages *held, uint32_t view, uint64_t number, bool cached,
                     uint32_t *from, uint32_t *to, char *out)
{
    *from = 0;
    *to = HELD_PAGE_BYTES;
    pthread_mutex_lock(&held->lock);
    struct held_page **slot = find(held, view, number);
    const struct held_page *page = *slot;
    if (page != NULL) {
        bool complete = page->filled >= page->needed;
        if (!complete)
            first_run(page, from, to);
        memcpy(out + *from, page->data + *from, *to - *from);
        if (complete && cached)
            drop(held, slot);
    }
    pthread_mutex_unlock(&held->lock);
    return page != NULL;
}

void held_pages_forget(struct held_pages *held, uint32_t view)
{
    held_pages_forget_range(held, view, 0, UINT64_MAX);
}

static void look_through(struct held_pages *held, uint32_t view, uint64_t first, uint64_t last)
{
    for (struct held_page *page = held->oldest, *next; page != NULL; page = next) {
        next = page->newer;
        if (page->view == view && page->page >= first && page->page <= last)
            drop(held, find(held, view, page->page));
    }
}

void held_pages_forget_range(struct held_pages *held, uint32_t view, uint64_t first, uint64_t last)
{
    pthread_mutex_lock(&held->lock);
    if (last - first < held->count)
        for (uint64_t page = first; page <= last; page++)
            drop(held, find(held, view, page));
    else
        look_through(held, view, first, last);
    pthread_mutex_unlock(&held->lock);
}

bool held_pages_empty(const struct held_pages *held)
{
    return __atomic_load_n(&held->count, __ATOMIC_RELAXED) == 0;
}
