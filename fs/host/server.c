/* SPDX-License-Identifier: MIT */
#include "fs/host/server.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/host/bounded_run.h"
#include "fs/host/mounted_fd.h"

static int ask(void *path)
{
    struct statfs totals;
    return statfs(path, &totals) ? errno : 0;
}

enum server_state server_ask(const char *path, int timeout_ms)
{
    switch (bounded_run(ask, (void *)path, -1, timeout_ms)) {
    case ENOTCONN:
    case ECONNABORTED:
        return SERVER_GONE;
    case -ETIMEDOUT:
        return SERVER_SILENT;
    default:
        return SERVER_ANSWERS;
    }
}

static bool is_named_unshard(const char *pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%.16s/comm", pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool read = fgets(name, sizeof name, file) != NULL;
    fclose(file);
    return read && (!strcmp(name, "unshard\n") || !strcmp(name, "mount.unshard\n") ||
                    !strcmp(name, "unshard-monitor\n"));
}

/* A process of which only threads are left shows no descriptors. */
static bool holds(const char *pid, unsigned connection)
{
    char path[64];
    bool found = false;
    snprintf(path, sizeof path, "/proc/%.16s/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return false;
    const struct dirent *entry;
    while (!found && (entry = readdir(folder))) {
        char link[96], target[32] = "";
        snprintf(link, sizeof link, "%s/%.16s", path, entry->d_name);
        if (readlink(link, target, sizeof target - 1) < 0 || strcmp(target, "/dev/fuse") != 0)
            continue;
        snprintf(link, sizeof link, "/proc/%.16s/fdinfo/%.16s", pid, entry->d_name);
        unsigned number = mounted_fd_connection(link);
        found = number == connection || number == 0;
    }
    closedir(folder);
    return found;
}

pid_t server_of(unsigned connection)
{
    pid_t found = 0;
    DIR *folder = opendir("/proc");
    if (!folder)
        return 0;
    const struct dirent *entry;
    while (!found && (entry = readdir(folder))) {
        const char *pid = entry->d_name;
        if (*pid >= '1' && *pid <= '9' && is_named_unshard(pid) && holds(pid, connection) &&
            strtol(pid, NULL, 10) != (long)getpid())
            found = (pid_t)strtol(pid, NULL, 10);
    }
    closedir(folder);
    return found;
}
