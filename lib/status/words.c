/* SPDX-License-Identifier: MIT */
#include "status/words.h"
#include "base/error.h"
#include "base/utf8.h"

#include <string.h>
#include <time.h>

static const char *const states[UNSHARD_STATE_COUNT] = {
    [UNSHARD_STATE_UNKNOWN] = "unknown",       [UNSHARD_STATE_PENDING] = "pending",
    [UNSHARD_STATE_READING] = "reading",       [UNSHARD_STATE_VERIFIED] = "verified",
    [UNSHARD_STATE_UNVERIFIED] = "unverified", [UNSHARD_STATE_FAILED] = "failed",
};
static const char *const mount_states[UNSHARD_MOUNT_STATE_COUNT] = {
    [UNSHARD_MOUNT_UNKNOWN] = "unknown",   [UNSHARD_MOUNT_PREFETCHING] = "prefetching",
    [UNSHARD_MOUNT_READY] = "ready",       [UNSHARD_MOUNT_PAUSED] = "paused",
    [UNSHARD_MOUNT_DEGRADED] = "degraded", [UNSHARD_MOUNT_FAILED] = "failed",
    [UNSHARD_MOUNT_STOPPING] = "stopping",
};
static const char *const verifications[] = {
    [UNSHARD_VERIFY_STRICT] = "strict",
    [UNSHARD_VERIFY_ASYNC] = "async",
    [UNSHARD_VERIFY_OFF] = "off",
};
static const char *const modes[] = {
    [UNSHARD_PREFETCH_ALL] = "all",
    [UNSHARD_PREFETCH_FOLLOW] = "follow",
    [UNSHARD_PREFETCH_OFF] = "off",
    [UNSHARD_PREFETCH_OPEN] = "open",
};
static const char *const restart_reasons[] = {"killed", "crashed", "failed", "upgraded", NULL};

/* The place of a word among `count`, or `otherwise`. */
static unsigned place_of(const char *word, const char *const *words, unsigned count,
                         unsigned otherwise)
{
    for (unsigned i = 0; i < count && word != NULL; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    return otherwise;
}

const char *unshard_state_name(enum unshard_state state)
{
    return states[state < UNSHARD_STATE_COUNT ? state : UNSHARD_STATE_UNKNOWN];
}

enum unshard_state state_of_name(const char *name)
{
    return place_of(name, states, UNSHARD_STATE_COUNT, UNSHARD_STATE_UNKNOWN);
}

const char *unshard_mount_state_name(enum unshard_mount_state state)
{
    return mount_states[state < UNSHARD_MOUNT_STATE_COUNT ? state : UNSHARD_MOUNT_UNKNOWN];
}

enum unshard_mount_state mount_state_of_name(const char *name)
{
    return place_of(name, mount_states, UNSHARD_MOUNT_STATE_COUNT, UNSHARD_MOUNT_UNKNOWN);
}

const char *verify_name(enum unshard_verify verify)
{
    return verifications[verify < UNSHARD_VERIFY_OFF ? verify : UNSHARD_VERIFY_OFF];
}

enum unshard_verify verify_of_name(const char *name)
{
    return place_of(name, verifications, UNSHARD_VERIFY_OFF, UNSHARD_VERIFY_OFF);
}

const char *prefetch_name(enum unshard_prefetch prefetch)
{
    return modes[prefetch <= UNSHARD_PREFETCH_OPEN ? prefetch : UNSHARD_PREFETCH_OFF];
}

enum unshard_prefetch prefetch_of_name(const char *name)
{
    return place_of(name, modes, UNSHARD_PREFETCH_OPEN + 1, UNSHARD_PREFETCH_OFF);
}

const char *restart_reason_of_name(const char *name)
{
    const unsigned count = sizeof restart_reasons / sizeof *restart_reasons - 1;
    return restart_reasons[place_of(name, restart_reasons, count, count)];
}

#define TIME_FORMAT "%Y-%m-%dT%H:%M:%SZ"

const char *status_time(char out[STATUS_TIME_CAPACITY], int64_t seconds)
{
    struct tm utc = {0};
    time_t when = (time_t)seconds;
    gmtime_r(&when, &utc);
    if (strftime(out, STATUS_TIME_CAPACITY, TIME_FORMAT, &utc) == 0)
        out[0] = '\0';
    return out;
}

int64_t status_time_of(const char *text)
{
    struct tm utc = {0};
    const char *end = text != NULL ? strptime(text, TIME_FORMAT, &utc) : NULL;
    return end != NULL && *end == '\0' ? (int64_t)timegm(&utc) : 0;
}

static bool is_utf8(const char *string)
{
    for (size_t left = strlen(string), length; left > 0; string += length, left -= length) {
        length = utf8_sequence((const unsigned char *)string, left);
        if (length == 0)
            return false;
    }
    return true;
}

const char *status_name(char out[STATUS_NAME_CAPACITY], const char *name)
{
    return is_utf8(name) ? name : error_quote(out, STATUS_NAME_CAPACITY, name, strlen(name));
}
