/* SPDX-License-Identifier: MIT */
#include "fs/cli/warmth.h"

#include <stdio.h>
#include <string.h>

#include "status/json_fields.h"
#include "unshard.h"

#define QUOTED_CAPACITY 512

static const char *quote(char out[QUOTED_CAPACITY], const char *string)
{
    return unshard_printable(out, QUOTED_CAPACITY, string, strlen(string));
}

static bool has_been_read(const cJSON *component)
{
    return field_is(component, "state", "verified") || field_is(component, "state", "unverified");
}

static const char *error_message(const cJSON *component)
{
    const cJSON *shard, *error = field_object(component, "error");
    cJSON_ArrayForEach(shard, field_array(component, "shards"))
    {
        if (field_object(shard, "error"))
            error = field_object(shard, "error");
    }
    return field_string(error, "message", "it has failed; 'unshard status' says more");
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

static bool lasts(const cJSON *item)
{
    const cJSON *error = field_object(item, "error");
    return error && !field_is(error, "code", "read-error");
}

/* Everything that is wrong with a failed component is reads that have failed: they are tried again
 * without end. */
static bool is_tried_again(const cJSON *component)
{
    const cJSON *shard;
    bool again = !lasts(component), found = false;
    cJSON_ArrayForEach(shard, field_array(component, "shards"))
    {
        again = again && !lasts(shard);
        found = found || field_object(shard, "error");
    }
    return again && found;
}

/* Of one component; adds its bytes. */
static enum warmth_state judge_component(const cJSON *component, bool prefetched, bool verified,
                                         struct warmth *out)
{
    const char *name = status_component_label(component);
    bool evicted = field_number(component, "evicted") > 0;
    bool failed = field_is(component, "state", "failed"), failing = is_tried_again(component);
    if (failed && !failing)
        return never(out, name, error_message(component));
    if (failed) {
        tell(out, name, error_message(component));
        return WARMTH_FAILING;
    }
    if (verified && field_is(component, "state", "unverified"))
        return never(out, name,
                     "no digest of it is known, so it cannot be verified; 'unshard seal' makes "
                     "digests");
    bool finished = (!verified || field_is(component, "state", "verified")) &&
                    (!prefetched || evicted || has_been_read(component));
    if (!finished && !*out->unfinished)
        out->unfinished = name;
    if (!evicted) {
        out->done += field_bytes(component, "bytes_published");
        out->total += field_bytes(component, "bytes_total");
    }
    return finished ? WARMTH_REACHED : WARMTH_RISING;
}

static enum warmth_state judge_whole(const cJSON *root, bool finished, struct warmth *out)
{
    char quoted[QUOTED_CAPACITY];
    const char *word = field_string(root, "state", "unknown");
    if (strcmp(word, "stopping") == 0)
        return never(out, field_string(root, "source", "?"), "the mount is being ended");
    if (strcmp(word, "paused") == 0) {
        snprintf(out->message, sizeof out->message, "as warm as memory allows (%s)",
                 quote(quoted, field_string(root, "paused_reason", "paused")));
        return WARMTH_REACHED;
    }
    const cJSON *problem = cJSON_GetArrayItem(field_array(root, "problems"), 0);
    if (finished && strcmp(word, "degraded") == 0 && problem)
        return never(out, "problem", field_string(problem, "message", "the mount has errors"));
    if (!finished || strcmp(word, "ready") != 0)
        return WARMTH_RISING;
    bool prefetched = field_is(root, "prefetch", "all");
    snprintf(out->message, sizeof out->message, "%s",
             prefetched ? "warm" : "ready, though this mount does not prefetch by itself");
    return WARMTH_REACHED;
}

enum warmth_state warmth_of(const cJSON *root, bool verified, struct warmth *out)
{
    const cJSON *component;
    bool finished = true, failing = false, prefetched = field_is(root, "prefetch", "all");
    *out = (struct warmth){.unfinished = ""};
    if (!root)
        return never(out, "status", "of a version that this program does not know");
    cJSON_ArrayForEach(component, field_array(root, "components"))
    {
        enum warmth_state state = judge_component(component, prefetched, verified, out);
        if (state == WARMTH_NEVER)
            return state;
        failing = failing || state == WARMTH_FAILING;
        finished = finished && state == WARMTH_REACHED;
    }
    if (failing && !field_is(root, "state", "stopping"))
        return WARMTH_FAILING;
    if (verified && !finished && !field_is(root, "state", "stopping"))
        return WARMTH_RISING;
    return judge_whole(root, finished, out);
}
