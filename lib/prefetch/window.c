/* SPDX-License-Identifier: MIT
 *
 * How far the prefetcher may run ahead of readers. A checkpoint that fits in memory is prefetched
 * whole. Of a larger one only a quarter of what page cache can take is published ahead, so that
 * what nobody has read yet stays among the newest half of the kernel's inactive list and is not
 * what reclaim takes first.
 */
#include "prefetch/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

static uint64_t meminfo_available(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (file == NULL)
        return UINT64_MAX;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kib = strtoull(line + 13, NULL, 10);
            break;
        }
    fclose(file);
    return kib != 0 ? (uint64_t)kib * 1024 : UINT64_MAX;
}

/* A number in a file of a cgroup; UINT64_MAX for "max" or when there is no such file. */
static uint64_t cgroup_number(const char *group, const char *name)
{
    char path[4200], text[64];
    if (snprintf(path, sizeof path, CGROUP_ROOT "%s/%s", group, name) >= (int)sizeof path)
        return UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    bool read = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    if (!read || strncmp(text, "max", 3) == 0)
        return UINT64_MAX;
    return strtoull(text, NULL, 10);
}

/* Bytes of page cache charged to the group: reclaimable, so room as far as we are concerned. */
static uint64_t cgroup_file_bytes(const char *group)
{
    char path[4200], line[128];
    uint64_t bytes = 0;
    if (snprintf(path, sizeof path, CGROUP_ROOT "%s/memory.stat", group) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "inactive_file ", 14) == 0)
            bytes += strtoull(line + 14, NULL, 10);
        else if (strncmp(line, "active_file ", 12) == 0)
            bytes += strtoull(line + 12, NULL, 10);
    fclose(file);
    return bytes;
}

static uint64_t cgroup_room(const char *group)
{
    uint64_t limit = cgroup_number(group, "memory.max"), high = cgroup_number(group, "memory.high");
    uint64_t used = cgroup_number(group, "memory.current");
    if (high < limit)
        limit = high;
    if (limit == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    uint64_t fixed = used, file = cgroup_file_bytes(group);
    fixed = fixed > file ? fixed - file : 0;
    return limit > fixed ? limit - fixed : 0;
}

uint64_t window_available_memory(void)
{
    char group[4096];
    uint64_t available = meminfo_available();
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return available;
    while (fgets(group, sizeof group, file) != NULL) {
        if (strncmp(group, "0::", 3) != 0)
            continue;
        group[strcspn(group, "\n")] = '\0';
        for (char *end = group + strlen(group); end > group + 3; end = strrchr(group + 3, '/')) {
            *end = '\0';
            uint64_t room = cgroup_room(group + 3);
            available = room < available ? room : available;
        }
    }
    fclose(file);
    return available;
}

void window_update(struct unshard_engine *engine, uint64_t available)
{
    uint64_t window = engine->options.window_bytes;
    bool fits = engine->total_bytes <= available / 4 * 3;
    if (window == 0)
        window = fits ? UINT64_MAX / 4 : available / 4;
    uint64_t least = 4 * (uint64_t)engine->chunk_bytes;
    engine->window_bytes = window < least ? least : window;
    engine->window_limited = engine->window_bytes < engine->total_bytes;
    uint64_t span = engine->window_limited ? engine->window_bytes / 8 : 0;
    if (engine->options.prefetch == UNSHARD_PREFETCH_FOLLOW && (span == 0 || span > (64U << 20)))
        span = 64U << 20;
    engine->sentinel_pages = span / PAGE_BYTES;
}
