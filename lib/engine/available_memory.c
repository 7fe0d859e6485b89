/* SPDX-License-Identifier: MIT
 *
 * How much page cache there is room for: what the kernel says is available, and less where a memory
 * control group above this process leaves less. Pages that are stored are charged to the group of
 * the process that stores them. Both versions of control groups are read where they are usually
 * mounted; a container that sees its own group as the root of the mount is understood too.
 */
#include "engine/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_CAPACITY 4400
#define GROUP_CAPACITY 4096
#define LATELY_NS UINT64_C(100000000)

/* Where one version keeps what we need. */
struct hierarchy {
    const char *roots[2]; /* where it may be mounted; NULL: no second place */
    const char *limit, *soft_limit, *usage;
    const char *inactive, *active; /* page cache, in memory.stat */
};

static const struct hierarchy version_1 = {
    {"/sys/fs/cgroup/memory", NULL}, "memory.limit_in_bytes", NULL,
    "memory.usage_in_bytes",         "total_inactive_file ",  "total_active_file "};
static const struct hierarchy version_2 = {{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"},
                                           "memory.max",
                                           "memory.high",
                                           "memory.current",
                                           "inactive_file ",
                                           "active_file "};

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

static FILE *open_in(const char *group, const char *name)
{
    char path[PATH_CAPACITY];
    if (name == NULL || snprintf(path, sizeof path, "%s/%s", group, name) >= (int)sizeof path)
        return NULL;
    return fopen(path, "re");
}

/* A number in a file of a group; UINT64_MAX for "max" or when there is no such file. */
static uint64_t group_number(const char *group, const char *name)
{
    char text[64];
    FILE *file = open_in(group, name);
    if (file == NULL)
        return UINT64_MAX;
    bool read = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return !read || strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

/* Page cache charged to the group: reclaimable, so room as far as we are concerned. */
static uint64_t group_file_bytes(const struct hierarchy *hierarchy, const char *group)
{
    char line[128];
    uint64_t bytes = 0;
    FILE *file = open_in(group, "memory.stat");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        const char *const counters[] = {hierarchy->inactive, hierarchy->active};
        for (size_t i = 0; i < 2; i++)
            if (strncmp(line, counters[i], strlen(counters[i])) == 0)
                bytes += strtoull(line + strlen(counters[i]), NULL, 10);
    }
    fclose(file);
    return bytes;
}

static uint64_t group_room(const struct hierarchy *hierarchy, const char *group)
{
    uint64_t limit = group_number(group, hierarchy->limit);
    uint64_t soft = group_number(group, hierarchy->soft_limit);
    uint64_t used = group_number(group, hierarchy->usage);
    if (soft < limit)
        limit = soft;
    if (limit == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    uint64_t file = group_file_bytes(hierarchy, group), fixed = used > file ? used - file : 0;
    return limit > fixed ? limit - fixed : 0;
}

/* The least room of the group at `path` below a root and of all groups above it. */
static uint64_t room_below(const struct hierarchy *hierarchy, const char *root, const char *path)
{
    char group[PATH_CAPACITY];
    uint64_t least = UINT64_MAX;
    size_t root_length = strlen(root);
    if (snprintf(group, sizeof group, "%s%s", root, path) >= (int)sizeof group)
        return UINT64_MAX;
    if (access(group, F_OK) != 0) /* the mount begins at our group */
        group[root_length] = '\0';
    for (;;) {
        uint64_t room = group_room(hierarchy, group);
        least = room < least ? room : least;
        char *slash = strrchr(group, '/');
        if (strlen(group) <= root_length || slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* A line of /proc/self/cgroup: "ID:CONTROLLERS:PATH"; version 2 has ID 0 and no controllers. */
static uint64_t room_of_line(char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *path = NULL;
    if (controllers != NULL)
        path = strchr(++controllers, ':');
    if (path == NULL)
        return UINT64_MAX;
    *path++ = '\0';
    const struct hierarchy *hierarchy = NULL;
    if (controllers[0] == '\0')
        hierarchy = &version_2;
    else if (strcmp(controllers, "memory") == 0)
        hierarchy = &version_1;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; hierarchy != NULL && i < 2 && hierarchy->roots[i] != NULL; i++) {
        uint64_t room = room_below(hierarchy, hierarchy->roots[i], path);
        least = room < least ? room : least;
    }
    return least;
}

uint64_t unshard_available_memory(void)
{
    char line[GROUP_CAPACITY];
    uint64_t available = meminfo_available();
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return available;
    while (fgets(line, sizeof line, file) != NULL) {
        uint64_t room = room_of_line(line);
        available = room < available ? room : available;
    }
    fclose(file);
    return available;
}

uint64_t available_memory_lately(void)
{
    static _Atomic uint64_t bytes, asked_ns;
    uint64_t now = engine_now_ns(), then = atomic_load(&asked_ns);
    if (then == 0 || now - then >= LATELY_NS) {
        atomic_store(&bytes, unshard_available_memory());
        atomic_store(&asked_ns, now);
    }
    return atomic_load(&bytes);
}
