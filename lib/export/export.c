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
 * permission) ends the whole. The first error is the one reported.
 *
 * What is finished is noted in the target (export_journal.h): the same export, begun again, keeps
 * that. It goes by what the journal says of the files, never by their names. */
#include "base/error.h"
#include "base/workers.h"
#include "engine/engine_error.h"
#include "export/export_journal.h"
#include "export/export_tree.h"
#include "export/view_fingerprint.h"
#include "tree/model.h"

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
#define CANCEL_TICKS 5 /* 1 s: then workers that do not end are not waited for to clean up */

struct view_output {
    int fd;        /* of the temporary file; written under the lock, -1 before and after */
    uint64_t left; /* bytes not finished yet; under the lock */
    bool created;  /* the temporary file exists; under the lock */
    bool failed;   /* under the lock */
    bool kept;     /* of an earlier run; const once workers run */
};

struct export
{
    const struct unshard_checkpoint *checkpoint;
    struct unshard_engine *engine;
    int target_fd;
    struct export_journal journal;
    enum unshard_verify verify;
    const int *cancelled;        /* or NULL; read atomically */
    unsigned cancelled_ticks;    /* of the caller's thread */
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

/* Every tensor is written once, as what is listed shows it. */
static bool is_exported(const struct export *export, uint32_t view)
{
    return !export->checkpoint->views[view].unlisted && !export->checkpoint->views[view].replaced;
}

/* Goes on to the next view that is to be written, this one included. */
static void skip_others(struct export *export)
{
    while (export->next_view < export->checkpoint->view_count &&
           (!is_exported(export, export->next_view) || export->outputs[export->next_view].kept))
        export->next_view++;
}

static bool is_cancelled(const struct export *export)
{
    return export->cancelled != NULL && __atomic_load_n(export->cancelled, __ATOMIC_RELAXED);
}

/* Takes the next item. False when there is none left. */
static bool take_item(struct export *export, struct item *item)
{
    pthread_mutex_lock(&export->lock);
    bool any = !export->stop && !is_cancelled(export) &&
               export->next_view < export->checkpoint->view_count;
    if (any) {
        const struct view *view = &export->checkpoint->views[export->next_view];
        item->view = export->next_view;
        item->offset = export->next_offset;
        /* What has failed is passed over, however long it says that it is. */
        item->length = export->outputs[export->next_view].failed
                           ? view->size - export->next_offset
                           : item_length(view, export->next_offset);
        export->current = view->path;
        export->next_offset += item->length;
        if (export->next_offset == view->size) {
            export->next_view++;
            export->next_offset = 0;
            skip_others(export);
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
        int noted = export_journal_temporary(&export->journal, view->path);
        if (noted == 0)
            fd = output->fd = export_tree_create(export->target_fd, view->path, error);
        else
            fd = error_set(error, "write-error", -noted, "%s: cannot create: %s", view->path,
                           strerror(-noted));
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

/* Gives a complete file its name, and notes that before and after. */
static int finish_view(struct export *export, uint32_t number, struct unshard_error *error)
{
    const struct view *view = &export->checkpoint->views[number];
    int fd = export->outputs[number].fd;
    int result = export_tree_seal(fd, &export->checkpoint->nodes[view->node]);
    if (result == 0)
        result = export_journal_begin(&export->journal, view->path, fd);
    if (result == 0)
        result = export_tree_name(export->target_fd, view->path);
    if (result < 0)
        return error_set(error, "write-error", -result, "%s: %s", view->path, strerror(-result));
    /* Without the note it will be written once more, and that is all. */
    (void)!export_journal_done(&export->journal, view->path, fd,
                               view_fingerprint(export->checkpoint, number, export->verify));
    return 0;
}

/* Of a cancelled export no file is finished any more. */
static void give_up_view(struct export *export, uint32_t view)
{
    pthread_mutex_lock(&export->lock);
    export->outputs[view].failed = true;
    pthread_mutex_unlock(&export->lock);
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
    struct unshard_error error = {0};
    int result = failed ? 0 : finish_view(export, item->view, &error);
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
        if (is_cancelled(export)) {
            give_up_view(export, item->view);
        } else if (result < 0) {
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

/* Removes the temporary files of views that were begun and not finished. */
static void discard_unfinished(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++)
        if (export->outputs[i].created)
            export_tree_discard(export->target_fd, export->checkpoint->views[i].path);
}

/* Workers end with their item. One whose storage hangs may not, and is not to leave its file. */
static void look_for_cancellation(struct export *export)
{
    if (!is_cancelled(export))
        return;
    pthread_mutex_lock(&export->lock);
    if (export->cancelled_ticks++ == CANCEL_TICKS)
        discard_unfinished(export);
    pthread_mutex_unlock(&export->lock);
}

static void report_progress(void *context)
{
    struct export *export = context;
    look_for_cancellation(export);
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

/* Counts what is to be done. */
static void plan(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++) {
        export->outputs[i].fd = -1;
        export->outputs[i].failed = export->checkpoint->views[i].unreadable;
        export->outputs[i].left = export->checkpoint->views[i].size;
        if (is_exported(export, i))
            export->total += export->checkpoint->views[i].size;
        if (export->outputs[i].kept)
            export->done += export->checkpoint->views[i].size;
    }
    skip_others(export);
}

/* Its views are open: a shard that changes meanwhile, and that nothing says the same of, is not
 * read anew in the middle of a file, but fails. */
static void open_views(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++)
        if (is_exported(export, i))
            unshard_engine_view_opened(export->engine, i, false, 1);
}

static void close_unfinished(struct export *export)
{
    discard_unfinished(export);
    for (uint32_t i = 0; i < export->checkpoint->view_count; i++)
        if (export->outputs[i].created)
            close(export->outputs[i].fd);
}

/* ---- what an earlier run has left --------------------------------------------------------------
 */

static int compare_paths(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Removes temporary files, and finished ones that the checkpoint does not have any more. */
static int clear_leftovers(struct export *export)
{
    const struct unshard_checkpoint *checkpoint = export->checkpoint;
    const struct export_journal *journal = &export->journal;
    const char **paths = calloc((size_t)checkpoint->view_count + 1, sizeof *paths);
    uint32_t count = 0;
    struct stat status;
    if (paths == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < checkpoint->view_count; i++)
        if (is_exported(export, i))
            paths[count++] = checkpoint->views[i].path;
    qsort(paths, count, sizeof *paths, compare_paths);
    for (uint32_t i = 0; i < journal->record_count; i++) {
        const struct export_record *record = &journal->records[i];
        if (record->temporary)
            export_tree_discard(export->target_fd, record->path);
        if (!bsearch(&record->path, paths, count, sizeof *paths, compare_paths) &&
            export_tree_stat(export->target_fd, record->path, &status) == 0 &&
            export_record_owns(record, &status))
            export_tree_remove(export->target_fd, record->path);
    }
    free(paths);
    return 0;
}

/* Looks whether the file of a view is there, and is to stay. */
static int look_at_earlier(struct export *export, uint32_t number, struct unshard_error *error)
{
    const char *path = export->checkpoint->views[number].path;
    const struct export_record *record = export_journal_find(&export->journal, path);
    struct stat status;
    int result = export_tree_stat(export->target_fd, path, &status);
    if (result == -ENOENT)
        return 0;
    if (result < 0)
        return error_set(error, "target", -result, "%s: %s", path, strerror(-result));
    if (record == NULL || !export_record_owns(record, &status))
        return error_set(error, "target-not-empty", EEXIST,
                         "%s: is in the target, and not of the export that is gone on with: remove "
                         "it, or choose another target",
                         path);
    export->outputs[number].kept = export_record_keeps(
        record, &status, view_fingerprint(export->checkpoint, number, export->verify));
    return 0;
}

static int take_over(struct export *export, struct unshard_error *error)
{
    int result = clear_leftovers(export);
    if (result < 0)
        return error_no_memory(error);
    for (uint32_t i = 0; i < export->checkpoint->view_count && result == 0; i++)
        if (is_exported(export, i))
            result = look_at_earlier(export, i, error);
    return result;
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

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

/* The same of a file of no component that discovery has found bad. */
static void report_failed_files(struct export *export)
{
    for (uint32_t i = 0; i < export->checkpoint->file_count; i++) {
        const struct source_file *file = &export->checkpoint->files[i];
        if (file->failed && file->component == NO_COMPONENT)
            record_error(export, file->error->errno_value > 0 ? -file->error->errno_value : -EIO,
                         file->error);
    }
}

static int export_into(struct export *export, const struct unshard_fetch_options *options)
{
    unsigned workers;
    struct unshard_fetch_options chosen = engine_options(options, &workers);
    int result = export_tree_make(export->checkpoint, export->target_fd, export->journal.resumed,
                                  &export->error);
    if (result == 0 && export->journal.resumed)
        result = take_over(export, &export->error);
    if (result == 0)
        result = unshard_engine_start(export->checkpoint, &chosen, NULL, &export->engine,
                                      &export->error);
    if (result < 0)
        return result;
    open_views(export);
    plan(export);
    run_workers(export, workers);
    unshard_engine_stop(export->engine);
    close_unfinished(export);
    struct unshard_error error = {0};
    if (is_cancelled(export))
        return error_set(&export->error, "cancelled", ECANCELED,
                         "stopped; the same command goes on with it");
    if (!export->stop && export->next_view < export->checkpoint->view_count) {
        /* No worker had what it needs: a thread and a buffer. */
        result = error_no_memory(&error);
        record_error(export, result, &error);
    }
    report_failed_components(export);
    report_failed_files(export);
    result = export_tree_sync(export->checkpoint, export->target_fd, &error);
    if (result < 0)
        record_error(export, result, &error);
    return export->result;
}

int unshard_export(const struct unshard_checkpoint *checkpoint,
                   const struct unshard_fetch_options *options, const char *target,
                   const int *cancelled, unshard_progress progress, void *context,
                   struct unshard_error *error)
{
    struct export export = {.checkpoint = checkpoint,
                            .verify = options != NULL ? options->verify : UNSHARD_VERIFY_STRICT,
                            .cancelled = cancelled,
                            .progress = progress,
                            .progress_context = context};
    export.target_fd = export_tree_open(target, error);
    if (export.target_fd < 0)
        return export.target_fd;
    int result =
        export_journal_open(&export.journal, export.target_fd, target, checkpoint->source, error);
    if (result < 0) {
        close(export.target_fd);
        return result;
    }
    export.outputs = calloc((size_t)checkpoint->view_count + 1, sizeof *export.outputs);
    result = export.outputs ? -pthread_mutex_init(&export.lock, NULL) : -ENOMEM;
    if (result < 0) {
        error_set(error, "no-memory", -result, "%s: cannot begin: %s", target, strerror(-result));
    } else {
        result = export_into(&export, options);
        if (result < 0 && error)
            *error = export.error;
        pthread_mutex_destroy(&export.lock);
    }
    free(export.outputs);
    export_journal_close(&export.journal, export.target_fd, result == 0);
    close(export.target_fd);
    return result;
}
