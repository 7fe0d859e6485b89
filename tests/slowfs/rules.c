/* SPDX-License-Identifier: MIT */
#include "rules.h"

#include <errno.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_RULES = 256, MAX_FILES = 4096, PATH_SIZE = 512, FOREVER = -1 };

enum rule_kind { RULE_FAIL, RULE_SHORT, RULE_FLIP, RULE_STALL, RULE_VANISH };

struct rule {
    enum rule_kind kind;
    char pattern[PATH_SIZE];
    uint64_t offset, length;
    int value; /* errno, or bit */
    int count; /* how often it still acts, or FOREVER */
};

struct file_stats {
    char path[PATH_SIZE];
    uint64_t requests, bytes;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t released;
    struct rule rules[MAX_RULES];
    size_t rule_count;
    uint64_t latency_ns, stream_rate, total_rate;
    uint64_t total_next_ns;
    uint64_t nth_left; /* 0: no nth rule */
    int nth_errno;
    uint64_t requests, bytes;
    unsigned in_flight, max_in_flight, stalled;
    struct file_stats files[MAX_FILES];
    size_t file_count;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* ---- commands -------------------------------------------------------------------------------- */

static int add_rule(const struct rule *rule)
{
    if (state.rule_count == MAX_RULES)
        return -ENOSPC;
    state.rules[state.rule_count++] = *rule;
    return 0;
}

static void release_stalls(void)
{
    size_t kept = 0;

    for (size_t i = 0; i < state.rule_count; i++) {
        if (state.rules[i].kind != RULE_STALL)
            state.rules[kept++] = state.rules[i];
    }
    state.rule_count = kept;
    pthread_cond_broadcast(&state.released);
}

static void reset(void)
{
    release_stalls();
    state.rule_count = 0;
    state.latency_ns = state.stream_rate = state.total_rate = 0;
    state.nth_left = 0;
}

static bool parse_settings(const char *line)
{
    unsigned long long number;
    double milliseconds;
    int error;

    if (sscanf(line, "latency %lf", &milliseconds) == 1)
        state.latency_ns = (uint64_t)(milliseconds * 1e6);
    else if (sscanf(line, "rate %llu", &number) == 1)
        state.stream_rate = number;
    else if (sscanf(line, "total %llu", &number) == 1)
        state.total_rate = number;
    else if (sscanf(line, "failnth %llu %d", &number, &error) == 2) {
        state.nth_left = number;
        state.nth_errno = error;
    } else
        return false;
    return true;
}

static bool parse_rule(const char *line, struct rule *rule)
{
    unsigned long long offset = 0, length = UINT64_MAX;
    int fields;

    *rule = (struct rule){.count = FOREVER};
    if (sscanf(line, "fail %511s %llu %llu %d %d", rule->pattern, &offset, &length, &rule->value,
               &rule->count) >= 4) {
        rule->kind = RULE_FAIL;
    } else if (sscanf(line, "flip %511s %llu %d %d", rule->pattern, &offset, &rule->value,
                      &rule->count) >= 3) {
        rule->kind = RULE_FLIP;
        length = 1;
    } else if (sscanf(line, "short %511s %d", rule->pattern, &rule->count) >= 1) {
        rule->kind = RULE_SHORT;
    } else if ((fields = sscanf(line, "stall %511s %llu %llu", rule->pattern, &offset, &length)) ==
                   1 ||
               fields == 3) {
        rule->kind = RULE_STALL;
    } else if (sscanf(line, "vanish %511s", rule->pattern) == 1) {
        rule->kind = RULE_VANISH;
    } else {
        return false;
    }
    rule->offset = offset;
    rule->length = length;
    return true;
}

static int execute(const char *line)
{
    struct rule rule;

    if (!strcmp(line, "release"))
        release_stalls();
    else if (!strcmp(line, "reset"))
        reset();
    else if (parse_rule(line, &rule))
        return add_rule(&rule);
    else if (!parse_settings(line))
        return -EINVAL;
    return 0;
}

int rules_command(char *text)
{
    char *rest = NULL;
    int result = 0;

    pthread_mutex_lock(&state.lock);
    for (char *line = strtok_r(text, "\n", &rest); line && !result;
         line = strtok_r(NULL, "\n", &rest))
        result = execute(line);
    pthread_mutex_unlock(&state.lock);
    return result;
}

/* ---- matching -------------------------------------------------------------------------------- */

static bool applies(const struct rule *rule, enum rule_kind kind, const char *path, uint64_t offset,
                    size_t size)
{
    if (rule->kind != kind || rule->count == 0 || fnmatch(rule->pattern, path, 0))
        return false;
    return rule->offset < offset + size &&
           (rule->length > UINT64_MAX - rule->offset || offset < rule->offset + rule->length);
}

/* The first rule of the kind that concerns the range, used up by one. Caller holds the lock. */
static struct rule *take(enum rule_kind kind, const char *path, uint64_t offset, size_t size)
{
    for (size_t i = 0; i < state.rule_count; i++) {
        struct rule *rule = &state.rules[i];

        if (applies(rule, kind, path, offset, size)) {
            if (rule->count > 0)
                rule->count--;
            return rule;
        }
    }
    return NULL;
}

static int injected_error(const char *path, uint64_t offset, size_t size)
{
    const struct rule *rule = take(RULE_FAIL, path, offset, size);

    if (take(RULE_VANISH, path, offset, size))
        return ESTALE;
    if (rule)
        return rule->value;
    if (state.nth_left && --state.nth_left == 0)
        return state.nth_errno;
    return 0;
}

static void wait_while_stalled(const char *path, uint64_t offset, size_t size)
{
    state.stalled++;
    while (take(RULE_STALL, path, offset, size))
        pthread_cond_wait(&state.released, &state.lock);
    state.stalled--;
}

/* When a transfer of size bytes that starts now may end, at `rate` after what *next says is still
 * being sent. */
static uint64_t paced(uint64_t now, uint64_t next, size_t size, uint64_t rate)
{
    uint64_t start = next > now ? next : now;

    return start + (uint64_t)((double)size * 1e9 / (double)rate);
}

/* ---- reads ----------------------------------------------------------------------------------- */

static uint64_t delay(size_t size, _Atomic uint64_t *stream_next_ns)
{
    uint64_t now = now_ns(), until = now;

    if (state.stream_rate) {
        *stream_next_ns = paced(now, *stream_next_ns, size, state.stream_rate);
        until = *stream_next_ns;
    }
    if (state.total_rate) {
        state.total_next_ns = paced(now, state.total_next_ns, size, state.total_rate);
        if (state.total_next_ns > until)
            until = state.total_next_ns;
    }
    return until - now + state.latency_ns;
}

struct rules_verdict rules_begin_read(const char *path, uint64_t offset, size_t size,
                                      _Atomic uint64_t *stream_next_ns)
{
    struct rules_verdict verdict;

    pthread_mutex_lock(&state.lock);
    state.requests++;
    if (++state.in_flight > state.max_in_flight)
        state.max_in_flight = state.in_flight;
    wait_while_stalled(path, offset, size);
    verdict.error = injected_error(path, offset, size);
    verdict.cut_short = take(RULE_SHORT, path, offset, size) != NULL;
    verdict.wait_ns = delay(size, stream_next_ns);
    pthread_mutex_unlock(&state.lock);
    return verdict;
}

void rules_corrupt(const char *path, uint64_t offset, char *data, size_t size)
{
    pthread_mutex_lock(&state.lock);
    for (size_t i = 0; i < state.rule_count; i++) {
        struct rule *rule = &state.rules[i];

        if (!applies(rule, RULE_FLIP, path, offset, size) || rule->offset < offset)
            continue;
        data[rule->offset - offset] =
            (char)(data[rule->offset - offset] ^ (1 << (rule->value & 7)));
        if (rule->count > 0)
            rule->count--;
    }
    pthread_mutex_unlock(&state.lock);
}

static struct file_stats *stats_of(const char *path)
{
    for (size_t i = 0; i < state.file_count; i++) {
        if (!strcmp(state.files[i].path, path))
            return &state.files[i];
    }
    if (state.file_count == MAX_FILES)
        return NULL;
    snprintf(state.files[state.file_count].path, PATH_SIZE, "%s", path);
    return &state.files[state.file_count++];
}

void rules_end_read(const char *path, size_t size)
{
    struct file_stats *stats;

    pthread_mutex_lock(&state.lock);
    state.in_flight--;
    state.bytes += size;
    stats = stats_of(path);
    if (stats) {
        stats->requests++;
        stats->bytes += size;
    }
    pthread_mutex_unlock(&state.lock);
}

bool rules_vanished(const char *path)
{
    bool vanished;

    pthread_mutex_lock(&state.lock);
    vanished = take(RULE_VANISH, path, 0, 1) != NULL;
    pthread_mutex_unlock(&state.lock);
    return vanished;
}

char *rules_stats(void)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    pthread_mutex_lock(&state.lock);
    fprintf(out,
            "{\"requests\":%llu,\"bytes\":%llu,\"in_flight\":%u,\"max_in_flight\":%u,"
            "\"stalled\":%u,\"files\":{",
            (unsigned long long)state.requests, (unsigned long long)state.bytes, state.in_flight,
            state.max_in_flight, state.stalled);
    for (size_t i = 0; i < state.file_count; i++)
        fprintf(out, "%s\"%s\":{\"requests\":%llu,\"bytes\":%llu}", i ? "," : "",
                state.files[i].path, (unsigned long long)state.files[i].requests,
                (unsigned long long)state.files[i].bytes);
    pthread_mutex_unlock(&state.lock);
    fputs("}}\n", out);
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
