/* SPDX-License-Identifier: MIT */
#include "fs/cli/warmth.h"

#include <stdio.h>
#include <string.h>

#define QUOTED_CAPACITY 512

static const char *quote(char out[QUOTED_CAPACITY], const char *string)
{
    return unshard_printable(out, QUOTED_CAPACITY, string, strlen(string));
}

static bool has_been_read(const struct unshard_component_status *component)
{
    return component->state == UNSHARD_STATE_VERIFIED ||
           component->state == UNSHARD_STATE_UNVERIFIED;
}

static const char *error_message(const struct unshard_component_status *component)
{
    const struct unshard_error *error = component->error;
    for (uint32_t i = 0; i < component->shard_count; i++)
        if (component->shards[i]->error)
            error = component->shards[i]->error;
    return error ? error->message : "it has failed; 'unshard status' says more";
}

static void tell(struct warmth *out, const char *name, const char *why)
{
    char quoted[2][QUOTED_CAPACITY];
    snprintf(out->message, sizeof out->message, "%s: %s", quote(quoted[0], name),
             quote(quoted[1], why));
}

static enum warmth_state never(struct warmth *out, const char *name, const char *why)
{
    tell(out, name, why);
    return WARMTH_NEVER;
}

static bool lasts(const struct unshard_error *error)
{
    return error && strcmp(error->code, "read-error") != 0;
}

/* Everything that is wrong with a failed component is reads that have failed: they are tried again
 * without end. */
static bool is_tried_again(const struct unshard_component_status *component)
{
    bool again = !lasts(component->error), found = false;
    for (uint32_t i = 0; i < component->shard_count; i++) {
        again = again && !lasts(component->shards[i]->error);
        found = found || component->shards[i]->error;
    }
    return again && found;
}

/* Its name, but for the root's (".") that of its view. */
static const char *label_of(const struct unshard_component_status *component)
{
    bool root = strcmp(component->name, ".") == 0 && component->view;
    return root ? component->view : component->name;
}

/* Of one component; adds its bytes. */
static enum warmth_state judge_component(const struct unshard_component_status *component,
                                         bool prefetched, bool verified, struct warmth *out)
{
    const char *name = label_of(component);
    bool failed = component->state == UNSHARD_STATE_FAILED;
    if (failed && !is_tried_again(component))
        return never(out, name, error_message(component));
    if (failed) {
        tell(out, name, error_message(component));
        return WARMTH_FAILING;
    }
    if (verified && component->state == UNSHARD_STATE_UNVERIFIED)
        return never(out, name,
                     "no digest of it is known, so it cannot be verified; 'unshard seal' makes "
                     "digests");
    bool finished = (!verified || component->state == UNSHARD_STATE_VERIFIED) &&
                    (!prefetched || component->evicted || has_been_read(component));
    if (!finished && !*out->unfinished)
        out->unfinished = name;
    if (!component->evicted) {
        out->done += component->bytes_published;
        out->total += component->bytes_total;
    }
    return finished ? WARMTH_REACHED : WARMTH_RISING;
}

static enum warmth_state judge_whole(const struct unshard_status *status, bool finished,
                                     struct warmth *out)
{
    char quoted[QUOTED_CAPACITY];
    if (status->state == UNSHARD_MOUNT_STOPPING)
        return never(out, status->source ? status->source : "?", "the mount is being ended");
    if (status->state == UNSHARD_MOUNT_PAUSED) {
        const char *reason = status->paused_reason ? status->paused_reason : "paused";
        snprintf(out->message, sizeof out->message, "as warm as memory allows (%s)",
                 quote(quoted, reason));
        return WARMTH_REACHED;
    }
    if (finished && status->state == UNSHARD_MOUNT_DEGRADED && status->problem_count > 0)
        return never(out, "problem", status->problems[0].message);
    if (!finished || status->state != UNSHARD_MOUNT_READY)
        return WARMTH_RISING;
    const char *said = "ready, though this mount does not prefetch by itself";
    if (status->prefetch == UNSHARD_PREFETCH_ALL)
        said = "warm";
    if (status->prefetch == UNSHARD_PREFETCH_OPEN)
        said = "ready; what nobody has opened is not prefetched";
    snprintf(out->message, sizeof out->message, "%s", said);
    return WARMTH_REACHED;
}

enum warmth_state warmth_of(const struct unshard_status *status, bool verified, struct warmth *out)
{
    bool finished = true, failing = false;
    *out = (struct warmth){.unfinished = ""};
    if (!status)
        return never(out, "status", "of a version that this program does not know");
    bool prefetched = status->prefetch == UNSHARD_PREFETCH_ALL;
    bool stopping = status->state == UNSHARD_MOUNT_STOPPING;
    for (uint32_t i = 0; i < status->component_count; i++) {
        enum warmth_state state =
            judge_component(&status->components[i], prefetched, verified, out);
        if (state == WARMTH_NEVER)
            return state;
        failing = failing || state == WARMTH_FAILING;
        finished = finished && state == WARMTH_REACHED;
    }
    if (failing && !stopping)
        return WARMTH_FAILING;
    if (verified && !finished && !stopping)
        return WARMTH_RISING;
    return judge_whole(status, finished, out);
}
