/* SPDX-License-Identifier: MIT */
#include "fs/kernel/status_files.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Inode numbers of the directory and, after it, of its files: "unshard" in ASCII, out of the way of
 * numbers derived from paths by being fixed. */
#define FIRST_INODE UINT64_C(0x756e736861726400)

static char *plain_text(const struct unshard_status *status)
{
    return unshard_status_text(status, 0);
}

/* A snapshot is given to who opens the file within so many times what it took to make it. */
#define MOMENT 2U
/* It takes ten times as much to make a text, in small pieces. */
#define LARGE_BYTES ((size_t)1 << 20)
/* What a user may hold: so many bytes, but these last ones in any case. */
#define MOST_HELD_BYTES ((size_t)8 << 20)
#define LEAST_HELD 4U

struct status_file {
    const char *name;
    char *(*render)(const struct unshard_status *status);
};

static const struct status_file files[] = {
    {"status", plain_text},
    {"status.json", unshard_status_json},
    {"metrics", unshard_status_metrics},
    {"errors", unshard_status_errors},
};

unsigned status_file_count(void)
{
    return (unsigned)(sizeof files / sizeof files[0]);
}

const char *status_file_name(unsigned file)
{
    return files[file].name;
}

int status_file_find(const char *name)
{
    for (unsigned file = 0; file < status_file_count(); file++)
        if (!strcmp(files[file].name, name))
            return (int)file;
    return -1;
}

/* All snapshots, newest first, for status_snapshots_end too. The mutex also is what hands a
 * snapshot from the thread that made it to those that read it: between them there is only the
 * kernel. */
static pthread_mutex_t snapshots_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct status_snapshot *snapshots; /* protected by snapshots_mutex */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* One that was made for the same reader at this moment: a moment is as long as it takes to make a
 * few. Caller holds the mutex. */
static struct status_snapshot *find_recent(unsigned file, const struct status_reader *reader)
{
    uint64_t now = now_ns();
    for (struct status_snapshot *one = snapshots; one; one = one->next)
        if (one->file == file && one->text && status_reader_is(&one->reader, reader))
            return now - one->begun_ns <= MOMENT * one->cost_ns ? one : NULL;
    return NULL;
}

/* Takes the text of the oldest ones from a user who holds more than is good. Caller holds the
 * mutex.
 */
static void bound_user(uid_t user)
{
    size_t bytes = 0;
    unsigned count = 0;
    for (struct status_snapshot *one = snapshots; one; one = one->next) {
        if (one->reader.user.uid != user || !one->text)
            continue;
        bytes += one->length;
        if (++count <= LEAST_HELD || bytes <= MOST_HELD_BYTES || one->readers > 0)
            continue;
        bytes -= one->length;
        free(one->text);
        one->text = NULL;
        one->length = 0;
    }
}

static void add_snapshot(struct status_snapshot *snapshot)
{
    pthread_mutex_lock(&snapshots_mutex);
    snapshot->previous = NULL;
    snapshot->next = snapshots;
    if (snapshots)
        snapshots->previous = snapshot;
    snapshots = snapshot;
    bound_user(snapshot->reader.user.uid);
    pthread_mutex_unlock(&snapshots_mutex);
}

static char *render(unsigned file, const struct filesystem *filesystem,
                    const struct status_reader *reader)
{
    struct unshard_status *status = status_reader_take(filesystem, reader);
    char *text = status ? files[file].render(status) : NULL;
    unshard_status_free(status);
    return text;
}

static void free_snapshot(struct status_snapshot *snapshot)
{
    status_reader_free(&snapshot->reader);
    free(snapshot->text);
    free(snapshot);
}

/* The reader stays the caller's when it fails. */
static struct status_snapshot *make_snapshot(unsigned file, const struct filesystem *filesystem,
                                             const struct status_reader *reader)
{
    struct status_snapshot *snapshot = malloc(sizeof *snapshot);
    if (!snapshot)
        return NULL;
    *snapshot = (struct status_snapshot){
        .file = file, .reader = *reader, .references = 1, .begun_ns = now_ns()};
    snapshot->text = render(file, filesystem, reader);
    if (!snapshot->text) {
        free(snapshot);
        return NULL;
    }
    snapshot->length = strlen(snapshot->text);
    if (snapshot->length > LARGE_BYTES)
        malloc_trim(0); /* each loop thread would keep what it took to make one */
    snapshot->cost_ns = now_ns() - snapshot->begun_ns;
    return snapshot;
}

struct status_snapshot *status_snapshot_take(unsigned file, const struct filesystem *filesystem,
                                             struct status_reader *reader)
{
    pthread_mutex_lock(&snapshots_mutex);
    struct status_snapshot *snapshot = find_recent(file, reader);
    if (snapshot)
        snapshot->references++;
    pthread_mutex_unlock(&snapshots_mutex);
    struct status_snapshot *made = snapshot ? NULL : make_snapshot(file, filesystem, reader);
    if (!made) {
        status_reader_free(reader);
        return snapshot;
    }
    snapshot = made;
    add_snapshot(snapshot);
    return snapshot;
}

/* Caller holds the mutex. */
static void unlink_snapshot(struct status_snapshot *snapshot)
{
    *(snapshot->previous ? &snapshot->previous->next : &snapshots) = snapshot->next;
    if (snapshot->next)
        snapshot->next->previous = snapshot->previous;
}

static void drop(struct status_snapshot *snapshot, bool reader)
{
    pthread_mutex_lock(&snapshots_mutex);
    snapshot->readers -= reader;
    bool last = --snapshot->references == 0;
    if (last)
        unlink_snapshot(snapshot);
    pthread_mutex_unlock(&snapshots_mutex);
    if (last)
        free_snapshot(snapshot);
}

const char *status_snapshot_begin_read(struct status_snapshot *snapshot, size_t *length)
{
    pthread_mutex_lock(&snapshots_mutex);
    const char *text = snapshot->text;
    *length = snapshot->length;
    if (text) {
        snapshot->references++;
        snapshot->readers++;
    }
    pthread_mutex_unlock(&snapshots_mutex);
    return text;
}

void status_snapshot_end_read(struct status_snapshot *snapshot)
{
    drop(snapshot, true);
}

void status_snapshot_release(struct status_snapshot *snapshot)
{
    drop(snapshot, false);
}

void status_snapshots_end(void)
{
    while (snapshots) {
        struct status_snapshot *snapshot = snapshots;
        snapshots = snapshot->next;
        free_snapshot(snapshot);
    }
}

void status_file_attributes(int file, const struct stat *shown, struct stat *out)
{
    memset(out, 0, sizeof *out);
    out->st_ino = FIRST_INODE + (uint64_t)(file + 1);
    out->st_mode = shown->st_mode;
    out->st_nlink = 1;
    out->st_uid = shown->st_uid;
    out->st_gid = shown->st_gid;
    out->st_blksize = 4096;
    /* The length is known only once rendered; direct I/O makes readers go on to the real end. */
    clock_gettime(CLOCK_REALTIME, &out->st_mtim);
    out->st_atim = out->st_ctim = out->st_mtim;
}
