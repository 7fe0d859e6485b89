/* SPDX-License-Identifier: MIT */
#include "engine/look_reports.h"

#include "base/error.h"
#include "engine/engine_internal.h"

#include <stdlib.h>
#include <string.h>

/* The look at a directory that is to be told of, among those that hang; NULL: there is none. One
 * that began since then is another one. */
static const struct unshard_stuck_look *find(const struct unshard_looks *looks,
                                             const char *directory)
{
    for (uint32_t i = 0; i < looks->stuck_count; i++)
        if (looks->stuck[i].seconds >= REPORT_SECONDS &&
            strcmp(looks->stuck[i].directory, directory) == 0)
            return &looks->stuck[i];
    return NULL;
}

static void tell(struct unshard_engine *engine, int priority, const char *event,
                 const char *directory, double seconds)
{
    char field[512];
    engine_log(engine, priority, "event=%s directory=\"%s\" seconds=%.0f", event,
               error_field(field, sizeof field, directory), seconds);
}

static void tell_ended(struct unshard_engine *engine, const struct unshard_looks *now)
{
    struct look_reports *reports = &engine->look_reports;
    unsigned kept = 0;
    for (unsigned i = 0; i < reports->count; i++) {
        struct reported_look *look = &reports->looks[i];
        const struct unshard_stuck_look *still = find(now, look->directory);
        if (still != NULL) {
            look->seconds = still->seconds;
            reports->looks[kept++] = *look;
        } else {
            tell(engine, 5, "look-ended", look->directory, look->seconds);
            free(look->directory);
        }
    }
    reports->count = kept;
}

static bool is_told(const struct look_reports *reports, const char *directory)
{
    for (unsigned i = 0; i < reports->count; i++)
        if (strcmp(reports->looks[i].directory, directory) == 0)
            return true;
    return false;
}

/* Those that began first come first, and stay in front until they end: so what was told is found
 * again, whatever comes after it. */
static void tell_begun(struct unshard_engine *engine, const struct unshard_looks *now)
{
    struct look_reports *reports = &engine->look_reports;
    for (uint32_t i = 0; i < now->stuck_count && reports->count < MOST_LOOKS_REPORTED; i++) {
        const struct unshard_stuck_look *look = &now->stuck[i];
        if (look->seconds < REPORT_SECONDS || is_told(reports, look->directory))
            continue;
        char *directory = strdup(look->directory);
        if (directory == NULL)
            return; /* the next time */
        tell(engine, 4, "look-stuck", directory, look->seconds);
        reports->looks[reports->count++] =
            (struct reported_look){.directory = directory, .seconds = look->seconds};
    }
}

void look_reports_update(struct unshard_engine *engine)
{
    struct unshard_looks now = {0};
    if (engine->publisher.looks == NULL)
        return;
    engine->publisher.looks(engine->publisher.context, &now);
    tell_ended(engine, &now);
    tell_begun(engine, &now);
    free(now.stuck);
}

void look_reports_free(struct look_reports *reports)
{
    while (reports->count > 0)
        free(reports->looks[--reports->count].directory);
}
