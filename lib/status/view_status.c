/* SPDX-License-Identifier: MIT
 *
 * What can be asked about a single view. */
#include "engine/engine_internal.h"
#include "formats/gather.h"
#include "status/error_line.h"

#include <string.h>

static bool shows(const struct unshard_engine *engine, uint32_t view, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    for (uint32_t i = 0; i < state->view_count; i++)
        if (engine->file_views[state->first_view + i] == view)
            return true;
    return false;
}

/* The error of a file as it is now; false when there is none. */
static bool error_of(struct unshard_engine *engine, uint32_t file, struct unshard_error *error)
{
    pthread_mutex_lock(&engine->lock);
    const struct unshard_error *known = file_error(engine, file);
    if (known != NULL)
        *error = *known;
    pthread_mutex_unlock(&engine->lock);
    return known != NULL;
}

/* Of a gathered file that has failed: the shard that its error is about. */
static const char *path_to_blame(const struct unshard_checkpoint *checkpoint, uint32_t file,
                                 const struct unshard_error *error)
{
    const struct gathered *gathered = checkpoint->files[file].gathered;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++) {
        const char *path = checkpoint->files[gathered->sources[i].file].path;
        if (error_names_file(error, path))
            return path;
    }
    return checkpoint->files[file].path;
}

char *unshard_view_errors(struct unshard_engine *engine, uint32_t view)
{
    const struct unshard_checkpoint *checkpoint = engine->checkpoint;
    struct text text = {0};
    struct unshard_error error;
    if (view >= checkpoint->view_count)
        return text_take(&text);
    uint32_t number = checkpoint->views[view].component;
    const struct component *component =
        number != NO_COMPONENT ? &checkpoint->components[number] : NULL;
    const char *name = component != NULL ? component->name : "-";
    if (component != NULL && component->failed && checkpoint->views[view].unreadable)
        error_line_append(&text, name, "-", &component->error);
    for (uint32_t i = 0; i < checkpoint->file_count; i++)
        if (shows(engine, view, i) && error_of(engine, i, &error))
            error_line_append(&text, name, path_to_blame(checkpoint, i, &error), &error);
    return text_take(&text);
}

/* What a file is checked by, as a bit; that of DIGEST_NONE: nothing is known of it. */
static unsigned algorithm_of(struct unshard_engine *engine, uint32_t file)
{
    const struct file_state *state = &engine->files[file];
    pthread_mutex_lock(&engine->lock);
    enum digest_algorithm algorithm = state->whole != NULL ? state->whole->digest.algorithm
                                      : state->check == CHECK_CHUNKS ? state->trusted.algorithm
                                                                     : DIGEST_NONE;
    pthread_mutex_unlock(&engine->lock);
    return 1U << algorithm;
}

/* The same of a file or of the shards that it is gathered from. */
static unsigned algorithms_of(struct unshard_engine *engine, uint32_t file)
{
    const struct gathered *gathered = engine->checkpoint->files[file].gathered;
    unsigned known = gathered == NULL ? algorithm_of(engine, file) : 0;
    for (uint32_t i = 0; gathered != NULL && i < gathered->source_count; i++)
        known |= algorithm_of(engine, gathered->sources[i].file);
    return known;
}

char *unshard_view_digest(struct unshard_engine *engine, uint32_t view)
{
    unsigned known = 0;
    struct text text = {0};
    for (uint32_t i = 0; i < engine->checkpoint->file_count; i++)
        if (shows(engine, view, i))
            known |= algorithms_of(engine, i);
    for (unsigned i = DIGEST_NONE + 1; i < DIGEST_ALGORITHM_COUNT; i++)
        if ((known >> i & 1U) != 0)
            text_printf(&text, "%s%s", text.length > 0 ? "," : "", digest_algorithm_name(i));
    if (text.length == 0)
        text_append_string(&text, "none");
    return text_take(&text);
}
