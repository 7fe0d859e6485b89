/* SPDX-License-Identifier: MIT */
#include "fs/kernel/status_snapshots.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/kernel/status_files.h"

/* A snapshot is given to who opens the file within so many times what it took to make it. */
#define MOMENT 2U
/* It takes ten times as much to make a text, in small pieces. */
#define LARGE_BYTES ((size_t)1 << 20)
/* What a user may hold: so many bytes, but these last ones in any case. */
#define MOST_HELD_BYTES ((size_t)8 << 20)
#define LEAST_HELD 4U
#define BUCKETS 256u
#define NUMBERS (UINT64_C(1) << 48) /* that a process gives at most */

/* As it is kept. */
struct kept_text {
    uint64_t number, length;
    uint32_t user;
    _Atomic uint32_t references;
    char text[];
};

struct snapshot {
    uint64_t number;
    unsigned file;
    struct status_reader reader;    /* who opened it */
    struct snapshot *newer, *older; /* among all there are */
    struct snapshot *next;          /* in its bucket */
    unsigned references, readers;   /* readers: READs at work, which have references too */
    uint64_t begun_ns, cost_ns;     /* when it was made, and how long that took */
    size_t length;
    char *text;             /* NULL: taken away from a user who held too many */
    struct kept_text *kept; /* where the text is; NULL: it is memory of its own */
    bool inherited;
};

static struct unshard_keep *keep; /* const after status_snapshots_begin */
static pthread_mutex_t snapshots_mutex = PTHREAD_MUTEX_INITIALIZER;
/* Of the mutex: */
static struct snapshot *newest, *buckets[BUCKETS];
static uint64_t last_number;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- the caller holds the mutex ----------------------------------------------------------------
 */

static struct snapshot *find(uint64_t number)
{
    struct snapshot *snapshot = buckets[number % BUCKETS];
    while (snapshot && snapshot->number != number)
        snapshot = snapshot->next;
    return snapshot;
}

/* One that was made for the same reader at this moment: a moment is as long as it takes to make a
 * few. */
static struct snapshot *find_recent(unsigned file, const struct status_reader *reader)
{
    uint64_t now = now_ns();
    for (struct snapshot *one = newest; one; one = one->older)
        if (!one->inherited && one->file == file && one->text &&
            status_reader_is(&one->reader, reader))
            return now - one->begun_ns <= MOMENT * one->cost_ns ? one : NULL;
    return NULL;
}

static void free_text(struct snapshot *snapshot)
{
    if (snapshot->kept)
        unshard_keep_remove(keep, snapshot->kept);
    else
        free(snapshot->text);
    snapshot->kept = NULL;
    snapshot->text = NULL;
    snapshot->length = 0;
}

/* Takes the text of the oldest ones from a user who holds more than is good. */
static void bound_user(uid_t user)
{
    size_t bytes = 0;
    unsigned count = 0;
    for (struct snapshot *one = newest; one; one = one->older) {
        if (one->reader.user.uid != user || !one->text)
            continue;
        bytes += one->length;
        if (++count <= LEAST_HELD || bytes <= MOST_HELD_BYTES || one->readers > 0)
            continue;
        bytes -= one->length;
        free_text(one);
    }
}

static void add(struct snapshot *snapshot)
{
    struct snapshot **bucket = &buckets[snapshot->number % BUCKETS];
    snapshot->next = *bucket;
    *bucket = snapshot;
    snapshot->newer = NULL;
    snapshot->older = newest;
    if (newest)
        newest->newer = snapshot;
    newest = snapshot;
    bound_user(snapshot->reader.user.uid);
}

static void leave(struct snapshot *snapshot)
{
    struct snapshot **link = &buckets[snapshot->number % BUCKETS];
    while (*link != snapshot)
        link = &(*link)->next;
    *link = snapshot->next;
    *(snapshot->newer ? &snapshot->newer->older : &newest) = snapshot->older;
    if (snapshot->older)
        snapshot->older->newer = snapshot->newer;
}

static void count(struct snapshot *snapshot, int change)
{
    snapshot->references += (unsigned)change;
    if (snapshot->kept)
        atomic_store(&snapshot->kept->references, snapshot->references - snapshot->readers);
}

/* ---- making and ending -------------------------------------------------------------------------
 */

/* Puts the text where it outlives the process, if there is room. */
static void keep_text(struct snapshot *snapshot)
{
    struct kept_text *kept =
        unshard_keep_add(keep, UNSHARD_KEEP_TEXT, sizeof *kept + snapshot->length);
    if (!kept)
        return;
    kept->number = snapshot->number;
    kept->length = snapshot->length;
    kept->user = snapshot->reader.user.uid;
    kept->references = 1;
    memcpy(kept->text, snapshot->text, snapshot->length);
    unshard_keep_commit(kept);
    free(snapshot->text);
    snapshot->text = kept->text;
    snapshot->kept = kept;
}

static char *render(unsigned file, const struct filesystem *filesystem,
                    const struct status_reader *reader)
{
    struct unshard_status *status = status_reader_take(filesystem, reader);
    char *text = status ? status_file_text(file, status) : NULL;
    unshard_status_free(status);
    return text;
}

/* The reader stays the caller's when it fails. */
static struct snapshot *make(unsigned file, const struct filesystem *filesystem,
                             const struct status_reader *reader)
{
    struct snapshot *snapshot = malloc(sizeof *snapshot);
    if (!snapshot)
        return NULL;
    *snapshot =
        (struct snapshot){.file = file, .reader = *reader, .references = 1, .begun_ns = now_ns()};
    snapshot->text = render(file, filesystem, reader);
    if (!snapshot->text) {
        free(snapshot);
        return NULL;
    }
    snapshot->length = strlen(snapshot->text);
    pthread_mutex_lock(&snapshots_mutex);
    snapshot->number = ++last_number;
    pthread_mutex_unlock(&snapshots_mutex);
    keep_text(snapshot);
    if (snapshot->length > LARGE_BYTES)
        malloc_trim(0); /* each loop thread would keep what it took to make one */
    snapshot->cost_ns = now_ns() - snapshot->begun_ns;
    return snapshot;
}

static void end(struct snapshot *snapshot)
{
    free_text(snapshot);
    status_reader_free(&snapshot->reader);
    free(snapshot);
}

uint64_t status_snapshot_take(unsigned file, const struct filesystem *filesystem,
                              struct status_reader *reader)
{
    pthread_mutex_lock(&snapshots_mutex);
    struct snapshot *snapshot = find_recent(file, reader);
    uint64_t number = snapshot ? snapshot->number : 0;
    if (snapshot)
        count(snapshot, 1);
    pthread_mutex_unlock(&snapshots_mutex);
    struct snapshot *made = number ? NULL : make(file, filesystem, reader);
    if (!made) {
        status_reader_free(reader);
        return number;
    }
    number = made->number;
    pthread_mutex_lock(&snapshots_mutex);
    add(made);
    pthread_mutex_unlock(&snapshots_mutex);
    return number;
}

static void drop(uint64_t number, bool reader)
{
    pthread_mutex_lock(&snapshots_mutex);
    struct snapshot *snapshot = find(number);
    if (snapshot) {
        snapshot->readers -= reader;
        count(snapshot, -1);
    }
    bool last = snapshot && snapshot->references == 0;
    if (last)
        leave(snapshot);
    pthread_mutex_unlock(&snapshots_mutex);
    if (last)
        end(snapshot);
}

const char *status_snapshot_begin_read(uint64_t number, size_t *length)
{
    pthread_mutex_lock(&snapshots_mutex);
    struct snapshot *snapshot = find(number);
    const char *text = snapshot ? snapshot->text : NULL;
    if (text) {
        *length = snapshot->length;
        snapshot->readers++;
        count(snapshot, 1);
    }
    pthread_mutex_unlock(&snapshots_mutex);
    return text;
}

void status_snapshot_end_read(uint64_t number)
{
    drop(number, true);
}

void status_snapshot_release(uint64_t number)
{
    drop(number, false);
}

/* ---- the process -------------------------------------------------------------------------------
 */

static int inherit(void *context, void *record, size_t bytes)
{
    struct kept_text *kept = record;
    (void)context;
    if (bytes < sizeof *kept || kept->length > bytes - sizeof *kept || kept->references == 0 ||
        kept->number == 0 || find(kept->number))
        return 0;
    struct snapshot *snapshot = malloc(sizeof *snapshot);
    if (!snapshot)
        return 0; /* whoever reads it is told ESTALE */
    *snapshot = (struct snapshot){.number = kept->number,
                                  .reader.user.uid = kept->user,
                                  .references = kept->references,
                                  .length = kept->length,
                                  .text = kept->text,
                                  .kept = kept,
                                  .inherited = true};
    struct snapshot **bucket = &buckets[snapshot->number % BUCKETS];
    snapshot->next = *bucket;
    *bucket = snapshot;
    snapshot->older = newest;
    if (newest)
        newest->newer = snapshot;
    newest = snapshot;
    return 0;
}

void status_snapshots_begin(struct unshard_keep *of, unsigned generation)
{
    keep = of;
    last_number = NUMBERS * generation;
    if (keep)
        unshard_keep_each(keep, UNSHARD_KEEP_TEXT, inherit, NULL);
}

void status_snapshots_end(void)
{
    while (newest) {
        struct snapshot *snapshot = newest;
        leave(snapshot);
        end(snapshot);
    }
}
