/* SPDX-License-Identifier: MIT
 *
 * unshard_export: the tree of a checkpoint as ordinary files.
 *
 * Every view is cut into items of ITEM_BYTES that worker threads take in order. Whoever takes the
 * first item of a view creates its temporary file, whoever ends the last one flushes and renames
 * it, so that about as many files are open as there are workers. Nothing here goes through an
 * engine: each byte is wanted once, in no particular order, and by nobody else.
 *
 * A view that cannot be read is dropped and the others go on; an error of the target (no space, no
 * permission) ends the whole. The first error is the one reported. */
#include "base/error.h"
#include "base/workers.h"
#include "checkpoint/model.h"
#include "export/export_tree.h"
#include "source/gather_read.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ITEM_BYTES (UINT64_C(8) << 20)
#define DEFAULT_JOBS 8
#define DEFAULT_BUFFER (UINT64_C(256) << 20)

struct view_output {
    int fd;         /* of the temporary file; written under the lock, -1 before and after */
    uint64_t items; /* not finished yet; under the lock */
    bool created;   /* the temporary file exists; under the lock */
    bool failed;    /* under the lock */
};

struct export
{
    const struct unshard_checkpoint *checkpoint;
    int target_fd;
    struct view_output *outputs; /* one per view */
    unshard_progress progress;   /* or NULL */
    void *progress_context;
    pthread_mutex_t lock; /* of everything below */
    uint32_t next_view;
    uint64_t next_offset;
    bool stop; /* an error of the target: take no further items */
    uint64_t done, total;
    const char *current; /* path of the view last worked on */
    int result;
    struct unshard_error error; /* the first one */
};

struct item {
    uint32_t view;
    uint64_t offset, length;
};

/* What a worker keeps from item to item: its buffer and the source file it read last. */
struct worker {
    struct export *export;
    unsigned char *buffer;
    int source_fd;
    uint32_t source;
};

/* ---- items -------------------------------------------------------------------------------------
 */

static uint64_t item_count(uint64_t size)
{
    return size == 0 ? 1 : (size - 1) / ITEM_BYTES + 1;
}

/* Takes the next item. False when there is none left. */
static bool take_item(struct export *export, struct item *item)
{
    pthread_mutex_lock(&export->lock);
    bool any = !export->stop && export->next_view < export->checkpoint->view_count;
    if (any) {
        const struct view *view = &export->checkpoint->views[export->next_view];
        uint64_t left = view->size - export->next_offset;
        item->view = export->next_view;
        item->offset = export->next_offset;
        item->length = left < ITEM_BYTES ? left : ITEM_BYTES;
        export->current = view->path;
        export->next_offset += item->length;
        if (export->next_offset == view->size) {
            export->next_view++;
            export->next_offset = 0;
        }
    }
    pthread_mutex_unlock(&export->lock);
    return any;
}

static void record_error(struct export *export, int result, const struct unshard_error *error)
{
    pthread_mutex_lock(&export->lock);
    if (export->result == 0) {
        export->result = result;
        export->error = *error;
    }
    pthread_mutex_unlock(&export->lock);
}

static void stop_all(struct export *export)
{
    pthread_mutex_lock(&export->lock);
    export->stop = true;
    pthread_mutex_unlock(&export->lock);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Makes worker->source_fd the source file. */
static int open_source(struct worker *worker, uint32_t source, struct unshard_error *error)
{
    const struct unshard_checkpoint *checkpoint = worker->export->checkpoint;
    const struct source_file *file = &checkpoint->files[source];
    if (worker->source_fd >= 0 && worker->source == source)
        return 0;
    if (worker->source_fd >= 0)
        close(worker->source_fd);
    worker->source_fd = checkpoint_open_file(checkpoint, source, 0);
    worker->source = source;
    if (worker->source_fd < 0)
        return error_set(error, "open-failed", -worker->source_fd, "%s: cannot open: %s",
                         file->path, strerror(-worker->source_fd));
    struct stat stat;
    if (fstat(worker->source_fd, &stat) < 0)
        return error_set(error, "read-error", errno, "%s: fstat: %s", file->path, strerror(errno));
    int64_t mtime_ns = (int64_t)stat.st_mtim.tv_sec * 1000000000 + stat.st_mtim.tv_nsec;
    /* A shorter file is found out by the read, which can say where it ends. */
    if ((uint64_t)stat.st_size >= file->size &&
        ((uint64_t)stat.st_size != file->size || mtime_ns != file->mtime_ns))
        return error_set(error, "changed", ESTALE, "%s: changed while it was exported", file->path);
    return 0;
}

/* Nothing could be read at offset: the file ends there, or (found by a later part first) before. */
static int fail_truncated(const struct worker *worker, const struct source_file *file,
                          uint64_t offset, struct unshard_error *error)
{
    struct stat stat;
    if (fstat(worker->source_fd, &stat) == 0 && (uint64_t)stat.st_size < offset)
        offset = (uint64_t)stat.st_size;
    return error_set_at(error, "truncated", EIO, offset,
                        "%s: truncated: it ends at %llu, its size was %llu", file->path,
                        (unsigned long long)offset, (unsigned long long)file->size);
}

static int read_on_disk(struct worker *worker, uint32_t source, uint64_t offset, void *buffer,
                        uint64_t length, struct unshard_error *error)
{
    int result = open_source(worker, source, error);
    if (result < 0)
        return result;
    const struct source_file *file = &worker->export->checkpoint->files[source];
    for (uint64_t done = 0, at; done < length;) {
        at = offset + done;
        ssize_t count =
            pread(worker->source_fd, (char *)buffer + done, (size_t)(length - done), (off_t)at);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_at(error, "read-error", errno, at, "%s: read at %llu: %s", file->path,
                                (unsigned long long)at, strerror(errno));
        if (count == 0)
            return fail_truncated(worker, file, at, error);
        done += (uint64_t)count;
    }
    return 0;
}

static int read_for_gather(void *context, uint32_t source, uint64_t offset, void *buffer,
                           size_t length, bool sparse, struct unshard_error *error)
{
    (void)sparse; /* everything goes through the page cache here */
    return read_on_disk(context, source, offset, buffer, length, error);
}

static uint64_t size_for_gather(void *context, uint32_t source)
{
    const struct worker *worker = context;
    return worker->export->checkpoint->files[source].size;
}

static int read_source(struct worker *worker, const struct extent_piece *piece,
                       unsigned char *buffer, struct unshard_error *error)
{
    const struct source_file *file = &worker->export->checkpoint->files[piece->source];
    struct gather_source files = {
        .context = worker, .read = read_for_gather, .size = size_for_gather};
    if (file->gathered != NULL)
        return gather_read(file->gathered, piece->source_offset, buffer, piece->length, &files,
                           error);
    return read_on_disk(worker, piece->source, piece->source_offset, buffer, piece->length, error);
}

/* Assembles the bytes of an item in the worker's buffer. */
static int read_item(struct worker *worker, const struct item *item, struct unshard_error *error)
{
    const struct extent_map *map = &worker->export->checkpoint->views[item->view].map;
    uint64_t done = 0;
    while (done < item->length) {
        struct extent_piece piece = extent_map_at(map, item->offset + done, item->length - done);
        if (piece.source == EXTENT_LITERAL) {
            memcpy(worker->buffer + done, map->literal + piece.source_offset, piece.length);
        } else {
            int result = read_source(worker, &piece, worker->buffer + done, error);
            if (result < 0)
                return result;
        }
        done += piece.length;
    }
    return 0;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

/* The descriptor of the view's temporary file, made by whoever comes first. Creating it under the
 * lock is short, and it is the only I/O that is. */
static int output_descriptor(struct export *export, uint32_t number, struct unshard_error *error)
{
    const struct view *view = &export->checkpoint->views[number];
    struct view_output *output = &export->outputs[number];
    pthread_mutex_lock(&export->lock);
    int fd = output->fd;
    if (fd < 0 && !output->failed) {
        fd = output->fd = export_tree_create(export->target_fd, view->path, error);
        output->created = fd >= 0;
    } else if (fd < 0) {
        fd = -ECANCELED;
    }
    pthread_mutex_unlock(&export->lock);
    return fd;
}

static int write_item(struct export *export, const struct item *item, const unsigned char *buffer,
                      struct unshard_error *error)
{
    int fd = output_descriptor(export, item->view, error);
    if (fd < 0)
        return fd;
    uint64_t done = 0;
    while (done < item->length) {
        ssize_t count =
            pwrite(fd, buffer + done, (size_t)(item->length - done), (off_t)(item->offset + done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0) {
            int number = count < 0 ? errno : EIO;
            return error_set_at(error, "write-error", number, item->offset + done, "%s: write: %s",
                                export->checkpoint->views[item->view].path, strerror(number));
        }
        done += (uint64_t)count;
    }
    return 0;
}

static bool view_failed(struct export *export, uint32_t view)
{
    pthread_mutex_lock(&export->lock);
    bool failed = export->outputs[view].failed;
    pthread_mutex_unlock(&export->lock);
    return failed;
}

/* Marks the view failed and keeps the error. */
static void fail_view(struct export *export, uint32_t view, int result,
                      const struct unshard_error *error)
{
    pthread_mutex_lock(&export->lock);
    bool first = !export->outputs[view].failed;
    export->outputs[view].failed = true;
    pthread_mutex_unlock(&export->lock);
    if (first)
        record_error(export, result, error);
}

/* Counts an item as done; the last one of a view finishes its file. */
static void end_item(struct export *export, const struct item *item)
{
    struct view_output *output = &export->outputs[item->view];
    pthread_mutex_lock(&export->lock);
    export->done += item->length;
    bool last = --output->items == 0 && output->created;
    bool failed = output->failed;
    pthread_mutex_unlock(&export->lock);
    if (!last)
        return;
    const struct view *view = &export->checkpoint->views[item->view];
    const struct unshard_node *node = &export->checkpoint->nodes[view->node];
    struct unshard_error error = {0};
    int result =
        failed ? 0 : export_tree_finish(export->target_fd, view->path, output->fd, node, &error);
    if (result < 0) {
        fail_view(export, item->view, result, &error);
        stop_all(export);
    }
    if (failed || result < 0)
        export_tree_discard(export->target_fd, view->path);
    close(output->fd);
    output->fd = -1;
    output->created = false;
}

static void do_item(struct worker *worker, const struct item *item)
{
    struct export *export = worker->export;
    struct unshard_error error = {0};
    if (!view_failed(export, item->view)) {
        int result = read_item(worker, item, &error);
        if (result < 0) {
            fail_view(export, item->view, result, &error);
        } else if ((result = write_item(export, item, worker->buffer, &error)) < 0 &&
                   result != -ECANCELED) {
            fail_view(export, item->view, result, &error);
            stop_all(export);
        }
    }
    end_item(export, item);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static void run_worker(void *context)
{
    struct export *export = context;
    struct worker worker = {.export = export, .source_fd = -1};
    struct item item;
    worker.buffer = malloc(ITEM_BYTES);
    while (worker.buffer && take_item(export, &item))
        do_item(&worker, &item);
    if (worker.source_fd >= 0)
        close(worker.source_fd);
    free(worker.buffer);
}

static void report_progress(void *context)
{
    struct export *export = context;
    pthread_mutex_lock(&export->lock);
    const char *path = export->current ? export->current : "";
    uint64_t done = export->done, total = export->total;
    pthread_mutex_unlock(&export->lock);
    if (export->progress)
        export->progress(export->progress_context, path, done, total);
}

static unsigned job_count(const struct unshard_fetch_options *options, uint64_t items)
{
    uint64_t jobs = options && options->jobs ? options->jobs : DEFAULT_JOBS;
    uint64_t buffer = options && options->buffer_bytes ? options->buffer_bytes : DEFAULT_BUFFER;
    uint64_t most = buffer / ITEM_BYTES > 0 ? buffer / ITEM_BYTES : 1;
    most = most < WORKERS_MAX ? most : WORKERS_MAX;
    most = most < items ? most : items;
    return (unsigned)(jobs < most ? jobs : most);
}

static void run_workers(struct export *export, unsigned jobs)
{
    int failure = workers_run(jobs, run_worker, report_progress, export);
    if (failure == 0)
        return;
    struct unshard_error error = {0};
    int result =
        error_set(&error, "no-thread", -failure, "cannot start a thread: %s", strerror(-failure));
    record_error(export, result, &error);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

/* Counts what is to be done. The number of items. */
static uint64_t plan(struct export *export)
{
    uint64_t items = 0;
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++) {
        export->outputs[i].fd = -1;
        export->outputs[i].failed = export->checkpoint->views[i].unreadable;
        export->outputs[i].items = item_count(export->checkpoint->views[i].size);
        export->total += export->checkpoint->views[i].size;
        items += export->outputs[i].items;
    }
    return items;
}

/* Removes the temporary files of views that were begun and not finished. */
static void discard_unfinished(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++) {
        if (!export->outputs[i].created)
            continue;
        export_tree_discard(export->target_fd, export->checkpoint->views[i].path);
        close(export->outputs[i].fd);
    }
}

/* A component without a view is missing from the target: an error, though the rest is there. */
static void report_failed_components(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->component_count; i++) {
        const struct component *component = &export->checkpoint->components[i];
        if (!component->failed)
            continue;
        struct unshard_error error = component->error;
        int number = error.errno_value > 0 ? error.errno_value : EIO;
        error_set(&error, component->error.code, number, "component %s is not exported: %.400s",
                  component->name, component->error.message);
        error.offset = component->error.offset;
        record_error(export, -number, &error);
    }
}

static int export_into(struct export *export, const struct unshard_fetch_options *options)
{
    int result = export_tree_make(export->checkpoint, export->target_fd, &export->error);
    if (result < 0)
        return result;
    run_workers(export, job_count(options, plan(export)));
    discard_unfinished(export);
    struct unshard_error error = {0};
    if (!export->stop && export->next_view < export->checkpoint->view_count) {
        /* No worker had what it needs: a thread and a buffer. */
        result = error_no_memory(&error);
        record_error(export, result, &error);
    }
    report_failed_components(export);
    result = export_tree_sync(export->checkpoint, export->target_fd, &error);
    if (result < 0)
        record_error(export, result, &error);
    return export->result;
}

int unshard_export(const struct unshard_checkpoint *checkpoint,
                   const struct unshard_fetch_options *options, const char *target,
                   unshard_progress progress, void *context, struct unshard_error *error)
{
    struct export export = {
        .checkpoint = checkpoint, .progress = progress, .progress_context = context};
    export.target_fd = export_tree_open(target, error);
    if (export.target_fd < 0)
        return export.target_fd;
    export.outputs = calloc((size_t)checkpoint->view_count + 1, sizeof *export.outputs);
    int result = export.outputs ? -pthread_mutex_init(&export.lock, NULL) : -ENOMEM;
    if (result < 0) {
        error_set(error, "no-memory", -result, "%s: cannot begin: %s", target, strerror(-result));
    } else {
        result = export_into(&export, options);
        if (result < 0 && error)
            *error = export.error;
        pthread_mutex_destroy(&export.lock);
    }
    free(export.outputs);
    close(export.target_fd);
    return result;
}
