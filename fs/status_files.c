/* SPDX-License-Identifier: MIT */
#include "fs/status_files.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Inode numbers of the directory and, after it, of its files: "unshard" in ASCII, out of the way of
 * numbers derived from paths by being fixed. */
#define FIRST_INODE UINT64_C(0x756e736861726400)

static char *render_status(struct unshard_engine *engine)
{
    char *json = unshard_status_json(engine);
    char *text = json ? unshard_status_text(json, 0) : NULL;
    free(json);
    return text;
}

static char *render_metrics(struct unshard_engine *engine)
{
    char *json = unshard_status_json(engine);
    char *text = json ? unshard_status_metrics(json) : NULL;
    free(json);
    return text;
}

struct status_file {
    const char *name;
    char *(*render)(struct unshard_engine *engine);
};

static const struct status_file files[] = {
    {"status", render_status},
    {"status.json", unshard_status_json},
    {"metrics", render_metrics},
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

/* All snapshots, for status_snapshots_end. The mutex also is what hands a snapshot from the thread
 * that made it to those that read it: between them there is only the kernel. */
static pthread_mutex_t snapshots_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct status_snapshot *snapshots; /* protected by snapshots_mutex */

static void add_snapshot(struct status_snapshot *snapshot)
{
    pthread_mutex_lock(&snapshots_mutex);
    snapshot->previous = NULL;
    snapshot->next = snapshots;
    if (snapshots)
        snapshots->previous = snapshot;
    snapshots = snapshot;
    pthread_mutex_unlock(&snapshots_mutex);
}

struct status_snapshot *status_snapshot_take(unsigned file, struct unshard_engine *engine)
{
    struct status_snapshot *snapshot = malloc(sizeof *snapshot);
    if (!snapshot)
        return NULL;
    snapshot->text = files[file].render(engine);
    if (!snapshot->text) {
        free(snapshot);
        return NULL;
    }
    snapshot->length = strlen(snapshot->text);
    snapshot->references = 1;
    add_snapshot(snapshot);
    return snapshot;
}

void status_snapshot_hold(struct status_snapshot *snapshot)
{
    pthread_mutex_lock(&snapshots_mutex);
    snapshot->references++;
    pthread_mutex_unlock(&snapshots_mutex);
}

void status_snapshot_release(struct status_snapshot *snapshot)
{
    pthread_mutex_lock(&snapshots_mutex);
    bool last = --snapshot->references == 0;
    if (last) {
        *(snapshot->previous ? &snapshot->previous->next : &snapshots) = snapshot->next;
        if (snapshot->next)
            snapshot->next->previous = snapshot->previous;
    }
    pthread_mutex_unlock(&snapshots_mutex);
    if (!last)
        return;
    free(snapshot->text);
    free(snapshot);
}

void status_snapshots_end(void)
{
    while (snapshots) {
        struct status_snapshot *snapshot = snapshots;
        snapshots = snapshot->next;
        free(snapshot->text);
        free(snapshot);
    }
}

void status_file_attributes(int file, const struct unshard_node *like, struct stat *out)
{
    memset(out, 0, sizeof *out);
    out->st_ino = FIRST_INODE + (uint64_t)(file + 1);
    out->st_mode = file < 0 ? S_IFDIR | 0555 : S_IFREG | 0444;
    out->st_nlink = 1;
    out->st_uid = like->uid;
    out->st_gid = like->gid;
    out->st_blksize = 4096;
    /* The length is known only once rendered; direct I/O makes readers go on to the real end. */
    clock_gettime(CLOCK_REALTIME, &out->st_mtim);
    out->st_atim = out->st_ctim = out->st_mtim;
}
