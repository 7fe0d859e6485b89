/* SPDX-License-Identifier: MIT */
#include "fs/kernel/journal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BANKS 4u     /* processes whose threads may be there at once */
#define LANDINGS 16u /* threads that read at once */
/* More than any request: what does not fit could not be read into it. */
#define LANDING_BYTES ((2u << 20) + 4096u)
/* By what requests of a file system that nobody writes to are. */
#define LANDING_USED (JOURNAL_REQUEST_MAX + PAGE)
#define PAGE 4096u
#define BLOCKS 8192u
#define BUCKETS 4096u
#define SENT_AGAIN (UINT64_C(1) << 63)
#define NOTIFY_RESEND 7 /* of <linux/fuse.h> 7.40 */

enum block_state { BLOCK_FREE, BLOCK_PARKED };

/* Of a block, apart from it: who looks for those that are parked touches nothing else. */
struct mark {
    _Atomic uint32_t state;
    uint32_t length;
    _Atomic uint32_t begun; /* by how many successors */
    uint32_t spare;
};

struct area {
    _Atomic uint32_t crashed; /* the generation of the last process that has crashed, and one */
    char spare[60];
    struct mark marks[BLOCKS];
    char blocks[BLOCKS][JOURNAL_REQUEST_MAX];
    char landings[BANKS][LANDINGS][LANDING_BYTES];
};

/* What is kept beside the blocks, made anew by each process. */
struct entry {
    uint64_t unique;
    uint32_t next;   /* in its bucket, or of free ones; BLOCKS: none */
    bool taken_over; /* and not begun yet */
    bool doomed;
};

struct journal {
    struct area *area;
    unsigned generation;
    bool crashed_before; /* the process before this one has crashed */
    atomic_bool landing_busy[LANDINGS];
    pthread_mutex_t mutex;
    /* Of mutex: */
    struct entry entries[BLOCKS];
    uint32_t buckets[BUCKETS], free;
    size_t parked, to_begin;
};

size_t journal_area_bytes(void)
{
    return sizeof(struct area);
}

static bool wants_answer(uint32_t opcode)
{
    return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET && opcode != FUSE_INTERRUPT &&
           opcode != FUSE_NOTIFY_REPLY && opcode != FUSE_INIT && opcode != FUSE_DESTROY;
}

/* Whether what stands there is a whole request to be answered. */
static bool is_request(const char *bytes, size_t length)
{
    const struct fuse_in_header *in = (const struct fuse_in_header *)bytes;
    return length >= sizeof *in && length <= JOURNAL_REQUEST_MAX && in->len == length &&
           in->unique != 0 && wants_answer(in->opcode);
}

static uint64_t unique_of(const char *request)
{
    return ((const struct fuse_in_header *)request)->unique;
}

/* ---- blocks; the caller holds the mutex --------------------------------------------------------
 */

/* Without the bit, so that what was sent again finds what it was before. */
static uint32_t *bucket_of(struct journal *journal, uint64_t unique)
{
    return &journal->buckets[((unique & ~SENT_AGAIN) * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}

static uint32_t find(struct journal *journal, uint64_t unique)
{
    uint32_t at = *bucket_of(journal, unique);
    while (at != BLOCKS && journal->entries[at].unique != unique)
        at = journal->entries[at].next;
    return at;
}

static void enter(struct journal *journal, uint32_t at, uint64_t unique)
{
    uint32_t *bucket = bucket_of(journal, unique);
    journal->entries[at] = (struct entry){.unique = unique, .next = *bucket};
    *bucket = at;
    journal->parked++;
}

static void leave(struct journal *journal, uint32_t at)
{
    struct entry *entry = &journal->entries[at];
    uint32_t *link = bucket_of(journal, entry->unique);
    while (*link != at)
        link = &journal->entries[*link].next;
    *link = entry->next;
    journal->parked--;
    journal->to_begin -= entry->taken_over;
    atomic_store_explicit(&journal->area->marks[at].state, BLOCK_FREE, memory_order_release);
    *entry = (struct entry){.next = journal->free};
    journal->free = at;
}

/* How often a request has been begun that is read now: what is sent again was, before. */
static uint32_t begun_before(struct journal *journal, uint64_t unique)
{
    uint32_t at = (unique & SENT_AGAIN) ? find(journal, unique & ~SENT_AGAIN) : BLOCKS;
    if (at != BLOCKS && journal->area->marks[at].begun > 0)
        return journal->area->marks[at].begun;
    return (unique & SENT_AGAIN) != 0;
}

/* BLOCKS: there is none any more. */
static uint32_t park(struct journal *journal, const char *request, size_t length)
{
    uint64_t unique = unique_of(request);
    uint32_t at = find(journal, unique);
    if (at != BLOCKS || journal->free == BLOCKS)
        return at;
    at = journal->free;
    journal->free = journal->entries[at].next;
    struct mark *mark = &journal->area->marks[at];
    memcpy(journal->area->blocks[at], request, length);
    mark->length = (uint32_t)length;
    mark->begun = begun_before(journal, unique);
    atomic_store_explicit(&mark->state, BLOCK_PARKED, memory_order_release);
    enter(journal, at, unique);
    return at;
}

/* ---- landings ----------------------------------------------------------------------------------
 */

static void empty(char *landing)
{
    struct fuse_in_header *in = (struct fuse_in_header *)landing;
    __atomic_store_n(&in->unique, 0, __ATOMIC_RELEASE);
}

/* A thread that is being killed may take a request from the queue, or write a reply, and for such a
 * one the kernel brings no page in: the copy fails, and it ends the request with EIO. So the pages
 * that it copies to and from are there before. */
static void bring_in_landings(struct journal *journal)
{
    for (unsigned i = 0; i < LANDINGS; i++) {
        char *landing = journal->area->landings[journal->generation % BANKS][i];
        for (size_t at = 0; at < LANDING_USED; at += PAGE)
            __atomic_fetch_or(landing + at, 0, __ATOMIC_RELAXED);
    }
}

static void bring_in(const struct iovec *pieces, int count)
{
    for (int i = 0; i < count; i++) {
        const volatile char *piece = pieces[i].iov_base;
        for (size_t at = 0; at < pieces[i].iov_len; at += PAGE)
            (void)piece[at];
        if (pieces[i].iov_len > 0)
            (void)piece[pieces[i].iov_len - 1];
    }
}

/* NULL: more threads read than was foreseen. */
static char *take_landing(struct journal *journal, unsigned *number)
{
    for (unsigned i = 0; i < LANDINGS; i++)
        if (!atomic_exchange_explicit(&journal->landing_busy[i], true, memory_order_acquire)) {
            *number = i;
            return journal->area->landings[journal->generation % BANKS][i];
        }
    return NULL;
}

/* From the landing, where the kernel has put it, to where it stays. */
static void park_landed(struct journal *journal, const char *landing, size_t length)
{
    if (!is_request(landing, length))
        return;
    pthread_mutex_lock(&journal->mutex);
    park(journal, landing, length);
    pthread_mutex_unlock(&journal->mutex);
}

ssize_t journal_read(struct journal *journal, int device, void *buffer, size_t length)
{
    unsigned number;
    char *landing = length <= LANDING_BYTES ? take_landing(journal, &number) : NULL;
    if (landing == NULL)
        return read(device, buffer, length);
    ssize_t got = read(device, landing, length);
    int reason = errno;
    if (got > 0) {
        park_landed(journal, landing, (size_t)got);
        memcpy(buffer, landing, (size_t)got);
        empty(landing);
    }
    atomic_store_explicit(&journal->landing_busy[number], false, memory_order_release);
    errno = reason;
    return got;
}

/* ---- replies -----------------------------------------------------------------------------------
 */

static ssize_t refuse(int device, uint64_t unique, int error)
{
    struct fuse_out_header out = {sizeof out, -error, unique};
    return write(device, &out, sizeof out);
}

ssize_t journal_write(struct journal *journal, int device, const struct iovec *pieces, int count)
{
    uint64_t unique = ((const struct fuse_out_header *)pieces[0].iov_base)->unique;
    if (unique != 0)
        bring_in(pieces, count);
    ssize_t written = writev(device, pieces, count);
    int reason = errno;
    if (unique == 0)
        return written;
    if (written < 0 && reason != ENOENT && reason != ENODEV)
        refuse(device, unique, EIO);
    pthread_mutex_lock(&journal->mutex);
    uint32_t at = find(journal, unique);
    if (at != BLOCKS)
        leave(journal, at);
    pthread_mutex_unlock(&journal->mutex);
    errno = reason;
    return written;
}

/* ---- taking over -------------------------------------------------------------------------------
 */

/* A block of an earlier process. Caller holds the mutex. */
static void take_over(struct journal *journal, uint32_t at)
{
    struct entry *entry = &journal->entries[at];
    entry->taken_over = true;
    entry->doomed = journal->crashed_before && journal->area->marks[at].begun > 0;
    journal->to_begin++;
}

static void find_blocks(struct journal *journal)
{
    journal->free = BLOCKS;
    for (uint32_t i = 0; i < BUCKETS; i++)
        journal->buckets[i] = BLOCKS;
    for (uint32_t at = BLOCKS; at-- > 0;) {
        struct mark *mark = &journal->area->marks[at];
        const char *request = journal->area->blocks[at];
        if (mark->state == BLOCK_PARKED && is_request(request, mark->length) &&
            find(journal, unique_of(request)) == BLOCKS) {
            enter(journal, at, unique_of(request));
            take_over(journal, at);
            continue;
        }
        if (mark->state != BLOCK_FREE)
            mark->state = BLOCK_FREE;
        journal->entries[at].next = journal->free;
        journal->free = at;
    }
}

static void find_landed_in(struct journal *journal, unsigned bank)
{
    for (unsigned i = 0; i < LANDINGS; i++) {
        char *landing = journal->area->landings[bank][i];
        const struct fuse_in_header *in = (const struct fuse_in_header *)landing;
        if (in->unique == 0)
            continue;
        if (is_request(landing, in->len) && find(journal, in->unique) == BLOCKS) {
            uint32_t at = park(journal, landing, in->len);
            if (at != BLOCKS)
                take_over(journal, at);
        }
        empty(landing);
    }
}

/* Those in landings of earlier processes. Caller holds the mutex. */
static void find_landed(struct journal *journal)
{
    for (unsigned bank = 0; bank < BANKS && journal->generation > 0; bank++)
        if (bank != journal->generation % BANKS)
            find_landed_in(journal, bank);
}

/* The first that was taken over and not begun; BLOCKS: none. Caller holds the mutex. */
static uint32_t first_to_begin(const struct journal *journal)
{
    uint32_t at = journal->to_begin > 0 ? 0 : BLOCKS;
    while (at < BLOCKS && !journal->entries[at].taken_over)
        at++;
    return at;
}

size_t journal_next(struct journal *journal, void *request, bool *doomed)
{
    size_t length = 0;
    pthread_mutex_lock(&journal->mutex);
    find_landed(journal);
    uint32_t at = first_to_begin(journal);
    if (at != BLOCKS) {
        struct mark *mark = &journal->area->marks[at];
        length = mark->length;
        memcpy(request, journal->area->blocks[at], length);
        *doomed = journal->entries[at].doomed;
        journal->entries[at].taken_over = false;
        journal->to_begin--;
        atomic_fetch_add(&mark->begun, 1);
    }
    pthread_mutex_unlock(&journal->mutex);
    return length;
}

size_t journal_parked(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    size_t parked = journal->parked;
    pthread_mutex_unlock(&journal->mutex);
    return parked;
}

bool journal_send_again(int device)
{
    struct fuse_out_header notification = {sizeof notification, NOTIFY_RESEND, 0};
    return write(device, &notification, sizeof notification) == sizeof notification;
}

void journal_crashed(struct journal *journal)
{
    atomic_store(&journal->area->crashed, journal->generation + 1);
}

struct journal *journal_new(void *area, unsigned generation)
{
    struct journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return NULL;
    journal->area = area;
    journal->generation = generation;
    journal->crashed_before = generation > 0 && journal->area->crashed == generation;
    pthread_mutex_init(&journal->mutex, NULL);
    find_blocks(journal);
    bring_in_landings(journal);
    if (generation > 0) /* of one that was here BANKS processes ago */
        find_landed_in(journal, generation % BANKS);
    return journal;
}

void journal_free(struct journal *journal)
{
    if (!journal)
        return;
    pthread_mutex_destroy(&journal->mutex);
    free(journal);
}
