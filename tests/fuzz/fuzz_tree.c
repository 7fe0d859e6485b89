/* SPDX-License-Identifier: MIT
 *
 * A directory tree: opening it as a checkpoint must lead to views and errors that make sense, and
 * never to a file outside of it; each directory by itself is what it is in the whole; its
 * description can be made, and every view be read. */
#include "tests/support/layout_check.h"
#include "tests/support/tree_check.h"
#include "tests/support/tree_input.h"

#include <pthread.h>

#define MOST_READ (UINT64_C(1) << 20)
#define BOUND_SECONDS 15

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char top[64];

static void remove_top(void)
{
    tree_clear(top);
    rmdir(top);
}

static void make_top(void)
{
    const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(top, sizeof top, "%s/unshard-fuzz-XXXXXX", memory);
    if (mkdtemp(top) == NULL)
        abort();
    setenv("UNSHARD_CACHE_DIR", "/nonexistent", 1);
    atexit(remove_top);
}

static void fail(const char *problem)
{
    fprintf(stderr, "%s\n", problem);
    remove_top();
    abort();
}

/* ---- reading ----------------------------------------------------------------------------------
 */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned asked, answered;

static void read_done(void *cookie, int error, const void *data, size_t size)
{
    unsigned sum = 0;
    for (size_t i = 0; error == 0 && i < size; i++)
        sum += ((const unsigned char *)data)[i]; /* every byte is there */
    (void)cookie;
    pthread_mutex_lock(&lock);
    answered += sum < UINT32_MAX;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_for_answers(void)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BOUND_SECONDS;
    int result = 0;
    pthread_mutex_lock(&lock);
    while (answered < asked && result == 0)
        result = pthread_cond_timedwait(&changed, &lock, &until);
    pthread_mutex_unlock(&lock);
    if (result != 0)
        fail("a read was not answered");
}

static void render(struct unshard_engine *engine, uint32_t view)
{
    struct unshard_status *status = unshard_status_take(engine, view);
    if (status == NULL)
        return;
    free(unshard_status_json(status));
    free(unshard_status_text(status, 80));
    free(unshard_status_metrics(status));
    free(unshard_status_errors(status));
    free(unshard_status_digests(status));
    unshard_status_free(status);
}

static void read_views(const struct unshard_checkpoint *checkpoint)
{
    struct unshard_fetch_options options = {.prefetch = UNSHARD_PREFETCH_OFF,
                                            .chunk_bytes = 65536,
                                            .buffer_bytes = 8 * 65536,
                                            .read_timeout_seconds = 10};
    struct unshard_engine *engine = NULL;
    struct unshard_error error;
    if (unshard_engine_start(checkpoint, &options, NULL, &engine, &error) != 0)
        return;
    for (uint32_t i = 0; i < checkpoint->view_count; i++) {
        uint64_t size = checkpoint->views[i].size;
        asked++;
        unshard_engine_read(engine, i, 0, size < MOST_READ ? size : MOST_READ, read_done, NULL);
    }
    wait_for_answers();
    for (uint32_t i = 0; i <= checkpoint->view_count; i++)
        render(engine, i < checkpoint->view_count ? i : UNSHARD_NO_VIEW);
    unshard_engine_stop(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char source[PATH_MAX];
    struct unshard_checkpoint *checkpoint = NULL;
    struct unshard_view_options options = {0};
    struct unshard_error error = {0};

    if (top[0] == '\0')
        make_top();
    if (size > 0) {
        options.order = data[0] & 1 ? UNSHARD_ORDER_CANONICAL : UNSHARD_ORDER_SHARD;
        options.layout = data[0] & 8   ? UNSHARD_LAYOUT_SHARDS
                         : data[0] & 2 ? UNSHARD_LAYOUT_BOTH
                                       : UNSHARD_LAYOUT_MERGED;
        options.index = data[0] & 4 ? UNSHARD_INDEX_HIDE : UNSHARD_INDEX_REWRITE;
    }
    tree_make(top, data, size, source);
    if (unshard_checkpoint_open(source, &options, &checkpoint, &error) == 0) {
        char what[1024];
        const char *problem = check_tree(checkpoint, top);
        if (problem == NULL)
            problem = check_layouts(checkpoint, what);
        if (problem != NULL)
            fail(problem);
        free(unshard_checkpoint_describe_json(checkpoint, true, &error));
        read_views(checkpoint);
        unshard_checkpoint_close(checkpoint);
    } else if (error.message[0] == '\0') {
        fail("not opened, and no reason");
    }
    tree_clear(top);
    return 0;
}
