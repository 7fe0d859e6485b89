/* SPDX-License-Identifier: MIT
 *
 * unshard_export: the tree of a checkpoint as ordinary files.
 *
 * Every view is cut into items of ITEM_BYTES that worker threads take in order. Whoever takes the
 * first item of a view creates its temporary file, whoever ends the last one flushes and renames
 * it, so that about as many files are open as there are workers. Bytes come from an engine that
 * stores nothing: they are checked, retried and gathered as those of a mount are. Items end where a
 * chunk ends, so that hardly any chunk is read for two of them.
 *
 * A view that cannot be read is dropped and the others go on; an error of the target (no space, no
 * permission) ends the whole. The first error is the one reported. */
#include "base/error.h"
#include "base/workers.h"
#include "checkpoint/model.h"
#include "export/export_tree.h"
#include "prefetch/engine_error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (UINT64_C(2) << 20)
#define ITEM_BYTES (UINT64_C(8) << 20)
#define MOST_ITEM_BYTES (ITEM_BYTES + CHUNK_BYTES)
#define DEFAULT_JOBS 16
#define DEFAULT_BUFFER (UINT64_C(256) << 20)

struct view_output {
    int fd;        /* of the temporary file; written under the lock, -1 before and after */
    uint64_t left; /* bytes not finished yet; under the lock */
    bool created;  /* the temporary file exists; under the lock */
    bool failed;   /* under the lock */
};

struct export
{
    const struct unshard_checkpoint *checkpoint;
    struct unshard_engine *engine;
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

/* What a worker keeps from item to item. */
struct worker {
    struct export *export;
    unsigned char *buffer; /* of MOST_ITEM_BYTES */
};

/* ---- items -------------------------------------------------------------------------------------
 */

/* How long the item at offset is: about ITEM_BYTES, up to where a chunk of a shard ends. */
static uint64_t item_length(const struct view *view, uint64_t offset)
{
    if (view->size - offset <= ITEM_BYTES)
        return view->size - offset;
    struct extent_piece piece = extent_map_at(&view->map, offset + ITEM_BYTES, CHUNK_BYTES);
    uint64_t to_boundary = CHUNK_BYTES - piece.source_offset % CHUNK_BYTES;
    bool within = piece.source != EXTENT_LITERAL && to_boundary <= piece.length;
    return ITEM_BYTES + (within ? to_boundary % CHUNK_BYTES : 0);
}

/* Goes on to the next view that is listed, this one included. */
static void skip_unlisted(struct export *export)
{
    while (export->next_view < export->checkpoint->view_count &&
           !unshard_view_listed(export->checkpoint, export->next_view))
        export->next_view++;
}

/* Takes the next item. False when there is none left. */
static bool take_item(struct export *export, struct item *item)
{
    pthread_mutex_lock(&export->lock);
    bool any = !export->stop && export->next_view < export->checkpoint->view_count;
    if (any) {
        const struct view *view = &export->checkpoint->views[export->next_view];
        item->view = export->next_view;
        item->offset = export->next_offset;
        item->length = item_length(view, export->next_offset);
        export->current = view->path;
        export->next_offset += item->length;
        if (export->next_offset == view->size) {
            export->next_view++;
            export->next_offset = 0;
            skip_unlisted(export);
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

/* A read of the engine that its worker waits for. */
struct pending_read {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool done;
    int error;
    unsigned char *buffer;
};

static void read_done(void *cookie, int error, const void *data, size_t size)
{
    struct pending_read *read = cookie;
    pthread_mutex_lock(&read->lock);
    if (error == 0)
        memcpy(read->buffer, data, size);
    read->error = error;
    read->done = true;
    pthread_cond_signal(&read->answered);
    pthread_mutex_unlock(&read->lock);
}

/* Puts the bytes of an item in the worker's buffer. */
static int read_item(struct worker *worker, const struct item *item, struct unshard_error *error)
{
    struct unshard_engine *engine = worker->export->engine;
    struct pending_read read = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                .answered = PTHREAD_COND_INITIALIZER,
                                .buffer = worker->buffer};
    if (item->length == 0)
        return 0;
    unshard_engine_read(engine, item->view, item->offset, (size_t)item->length, read_done, &read);
    pthread_mutex_lock(&read.lock);
    while (!read.done)
        pthread_cond_wait(&read.answered, &read.lock);
    pthread_mutex_unlock(&read.lock);
    if (read.error == 0)
        return 0;
    if (!engine_view_error(engine, item->view, error))
        error_set(error, "read-error", read.error, "%s: read at %llu: %s",
                  worker->export->checkpoint->views[item->view].path,
                  (unsigned long long)item->offset, strerror(read.error));
    return -read.error;
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
    output->left -= item->length;
    bool last = output->left == 0 && output->created;
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
    struct worker worker = {.export = export, .buffer = malloc(MOST_ITEM_BYTES)};
    struct item item;
    while (worker.buffer && take_item(export, &item))
        do_item(&worker, &item);
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

/* What the engine is to do, and how many workers wait for it: half of the memory is for its
 * buffers, half for what the workers hold, as far as that goes. */
static struct unshard_fetch_options engine_options(const struct unshard_fetch_options *options,
                                                   unsigned *workers)
{
    struct unshard_fetch_options chosen = {0};
    if (options)
        chosen = *options;
    uint64_t buffer = chosen.buffer_bytes ? chosen.buffer_bytes : DEFAULT_BUFFER;
    uint64_t jobs = chosen.jobs ? chosen.jobs : DEFAULT_JOBS;
    uint64_t most = buffer / 2 / MOST_ITEM_BYTES > 0 ? buffer / 2 / MOST_ITEM_BYTES : 1;
    *workers = (unsigned)(jobs < most ? jobs : most);
    chosen.prefetch = UNSHARD_PREFETCH_OFF;
    chosen.chunk_bytes = CHUNK_BYTES;
    chosen.buffer_bytes = buffer / 2;
    chosen.jobs = (unsigned)jobs;
    return chosen;
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

/* Counts what is to be done. */
static void plan(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++) {
        export->outputs[i].fd = -1;
        export->outputs[i].failed = export->checkpoint->views[i].unreadable;
        export->outputs[i].left = export->checkpoint->views[i].size;
        if (unshard_view_listed(export->checkpoint, i))
            export->total += export->checkpoint->views[i].size;
    }
    skip_unlisted(export);
}

/* Its views are open: a shard that changes meanwhile, and that nothing says the same of, is not
 * read anew in the middle of a file, but fails. */
static void open_views(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++)
        if (unshard_view_listed(export->checkpoint, i))
            unshard_engine_view_opened(export->engine, i, 1);
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
    unsigned workers;
    struct unshard_fetch_options chosen = engine_options(options, &workers);
    int result = export_tree_make(export->checkpoint, export->target_fd, &export->error);
    if (result == 0)
        result = unshard_engine_start(export->checkpoint, &chosen, NULL, &export->engine,
                                      &export->error);
    if (result < 0)
        return result;
    open_views(export);
    plan(export);
    run_workers(export, workers);
    unshard_engine_stop(export->engine);
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
