/* SPDX-License-Identifier: MIT */
#include "fs/host/mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/host/claim.h"
#include "fs/host/mount_table.h"
#include "fs/host/server.h"

/* What is searched for: a path, or when that is NULL a FUSE connection. */
struct search {
    const char *path;
    unsigned connection;
    struct mount_entry *found;
    int result;
};

static int compare(void *context, const struct mounted *mounted)
{
    struct search *search = context;
    bool matches = search->path ? !strcmp(mounted->mountpoint, search->path)
                                : mounted->major_number == 0 &&
                                      mounted->minor_number == search->connection &&
                                      !strncmp(mounted->type, "fuse", 4);
    struct mount_entry *found = search->found;
    if (!matches || strlen(mounted->mountpoint) >= sizeof found->path ||
        strlen(mounted->type) >= sizeof found->type)
        return 0;
    found->major_number = mounted->major_number;
    found->minor_number = mounted->minor_number;
    snprintf(found->path, sizeof found->path, "%s", mounted->mountpoint);
    snprintf(found->type, sizeof found->type, "%s", mounted->type);
    search->result = 0;
    return 0; /* a later one lies on top */
}

static int find_entry(const char *path, unsigned connection, struct mount_entry *out)
{
    struct search search = {path, connection, out, -ENOENT};
    int result = mount_table_each(compare, &search);
    return result ? result : search.result;
}

int mountpoint_find(const char *path, struct mount_entry *out)
{
    return find_entry(path, 0, out);
}

int mountpoint_find_connection(unsigned connection, struct mount_entry *out)
{
    return find_entry(NULL, connection, out);
}

int mountpoint_resolve(const char *path, char **out, struct unshard_error *error)
{
    char quoted[256];
    /* A slash at the end would have what is mounted there asked. */
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *plain = strndup(path, length);
    *out = plain ? realpath(plain, NULL) : NULL;
    int saved = errno;
    free(plain);
    if (*out)
        return 0;
    unshard_quote(quoted, sizeof quoted, path, strlen(path));
    return unshard_error_set(error, "path", saved, "%s: %s", quoted, strerror(saved));
}

bool mountpoint_contains(const char *outer, const char *inner)
{
    size_t length = strlen(outer);
    if (!strcmp(outer, "/"))
        return true;
    return !strncmp(outer, inner, length) && (inner[length] == '/' || inner[length] == '\0');
}

static int check_apart(const char *path, const char *source, struct unshard_error *error)
{
    char quoted[2][256];
    unshard_quote(quoted[0], sizeof quoted[0], path, strlen(path));
    unshard_quote(quoted[1], sizeof quoted[1], source, strlen(source));
    if (!strcmp(path, source))
        return unshard_error_set(
            error, "mountpoint", EINVAL,
            "%s: mount point and source are the same directory; -o over mounts "
            "over the source",
            quoted[0]);
    if (mountpoint_contains(source, path))
        return unshard_error_set(error, "mountpoint", EINVAL,
                                 "%s: mount point lies inside the source %s", quoted[0], quoted[1]);
    if (mountpoint_contains(path, source))
        return unshard_error_set(error, "mountpoint", EINVAL,
                                 "%s: mounting here would cover the source %s", quoted[0],
                                 quoted[1]);
    return 0;
}

int mountpoint_outside_file(char **path, const char *mountpoint, const char *source,
                            struct unshard_error *error)
{
    char quoted[256], *absolute = NULL;
    if (!*path)
        return 0;
    unshard_quote(quoted, sizeof quoted, *path, strlen(*path));
    const char *slash = strrchr(*path, '/'), *name = slash ? slash + 1 : *path;
    /* With a "." behind it only a directory is found. */
    char *directory = NULL, *resolved = NULL;
    int length = slash ? (int)(slash - *path) + 1 : 0;
    if (asprintf(&directory, "%.*s.", length, *path) >= 0)
        resolved = realpath(directory, NULL);
    else
        directory = NULL;
    int saved = errno;
    free(directory);
    if (!resolved)
        return unshard_error_set(error, "path", saved, "%s: the directory to write it in: %s",
                                 quoted, strerror(saved));
    int result = 0;
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        result = unshard_error_set(error, "path", EISDIR, "%s: this is no name for a file", quoted);
    else if (mountpoint_contains(source, resolved) || mountpoint_contains(mountpoint, resolved))
        result =
            unshard_error_set(error, "path", EINVAL,
                              "%s: a file in the source or the mount cannot be written", quoted);
    else if (asprintf(&absolute, "%s/%s", resolved[1] ? resolved : "", name) < 0)
        result = unshard_error_set(error, "no-memory", ENOMEM, "out of memory");
    free(resolved);
    if (result)
        return result;
    free(*path);
    *path = absolute;
    return 0;
}

#define MOST_STALE_MOUNTS 16
/* For a daemon that works, many times what it needs. */
#define PROBE_MS 5000

/* What the kernel does not answer by itself at once, somebody would have to. */
#define WAITS_MS 1000

struct named {
    const char *path, *fsname;
    unsigned connection;
    bool is_it; /* what lies on top */
};

static int compare_name(void *context, const struct mounted *mounted)
{
    struct named *named = context;
    if (strcmp(mounted->mountpoint, named->path) != 0)
        return 0;
    named->is_it =
        mount_table_is_unshard(mounted->type) && strcmp(mounted->source, named->fsname) == 0;
    named->connection = mounted->minor_number;
    return 0;
}

bool mountpoint_waits(const char *path, const char *fsname)
{
    struct named named = {.path = path, .fsname = fsname};
    return mount_table_each(compare_name, &named) == 0 && named.is_it &&
           server_of(named.connection) == 0 && server_ask(path, WAITS_MS) == SERVER_SILENT;
}

/* A mount that does not answer: ends its connection, unless its daemon runs. */
static int end_silent(const char *quoted, const struct mount_entry *entry,
                      struct unshard_error *error)
{
    pid_t pid = server_of(entry->minor_number);
    if (pid)
        return unshard_error_set(
            error, "mountpoint", EBUSY,
            "%s: already mounted by unshard, whose daemon (process %d) does not "
            "answer; 'unshard umount --force' ends it",
            quoted, (int)pid);
    int abort_fd = mountpoint_open_abort(entry->minor_number);
    int result = mountpoint_abort(entry->path, entry->minor_number, abort_fd);
    if (abort_fd >= 0)
        close(abort_fd);
    return result ? unshard_error_set(
                        error, "mountpoint", -result,
                        "%s: the daemon of the unshard mount there is dead, and its "
                        "connection cannot be ended: that needs root, or "
                        "/sys/fs/fuse/connections mounted and the user who made the mount",
                        quoted)
                  : 0;
}

/* Takes dead unshard mounts away from the top of `path`. */
static int clear_stale(const char *path, const char *quoted, struct unshard_error *error)
{
    struct mount_entry entry;
    for (int round = 0; round < MOST_STALE_MOUNTS; round++) {
        if (mountpoint_find(path, &entry) || !mount_table_is_unshard(entry.type))
            return 0;
        enum server_state state = server_ask(path, PROBE_MS);
        if (state == SERVER_ANSWERS)
            return unshard_error_set(error, "mountpoint", EBUSY, "%s: already mounted by unshard",
                                     quoted);
        int result = state == SERVER_SILENT ? end_silent(quoted, &entry, error) : 0;
        if (result)
            return result;
        result = mountpoint_detach(path, entry.minor_number);
        if (result && result != -ESTALE)
            return unshard_error_set(error, "mountpoint", -result,
                                     "%s: cannot take away the dead unshard mount: %s", quoted,
                                     strerror(-result));
    }
    return unshard_error_set(error, "mountpoint", ENOTCONN, "%s: too many dead mounts", quoted);
}

static int check_over(const char *path, const char *source, struct unshard_error *error)
{
    char quoted[2][256];
    unshard_quote(quoted[0], sizeof quoted[0], path, strlen(path));
    unshard_quote(quoted[1], sizeof quoted[1], source, strlen(source));
    if (!strcmp(path, "/"))
        return unshard_error_set(error, "mountpoint", EINVAL,
                                 "the root directory cannot be mounted over");
    if (!strcmp(path, source))
        return 0;
    return unshard_error_set(error, "mountpoint", EINVAL,
                             "%s: over mounts over the source: leave the mount point out, or name "
                             "%s again",
                             quoted[0], quoted[1]);
}

int mountpoint_prepare(const char *path, const char *source, bool over, int *claim,
                       struct unshard_error *error)
{
    *claim = -1;
    char quoted[256];
    struct stat attributes;
    unshard_quote(quoted, sizeof quoted, path, strlen(path));
    int result = clear_stale(path, quoted, error);
    if (!result)
        result = claim_take(path, claim, error);
    if (result)
        return result;
    if (stat(path, &attributes)) {
        int saved = errno;
        return unshard_error_set(error, "mountpoint", saved, "%s: %s", quoted, strerror(saved));
    }
    if (!S_ISDIR(attributes.st_mode))
        return unshard_error_set(error, "mountpoint", ENOTDIR, "%s: mount point is not a directory",
                                 quoted);
    return over ? check_over(path, source, error) : check_apart(path, source, error);
}

static int run_fusermount(const char *path)
{
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        execlp("fusermount3", "fusermount3", "-u", "-z", "-q", "--", path, (char *)NULL);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int mountpoint_open(const char *path)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int mountpoint_connection(int fd, unsigned *connection)
{
    struct statx attributes;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &attributes))
        return -errno;
    *connection = attributes.stx_dev_minor;
    return attributes.stx_dev_major == 0 ? 0 : -ENOTTY;
}

/* A descriptor of the mount that lies on top of `path`, and its name, when it is of this
 * connection; else -ESTALE. */
static int open_mount(const char *path, unsigned connection, char link[32])
{
    unsigned found = 0;
    int fd = mountpoint_open(path);
    if (fd < 0)
        return fd;
    if (mountpoint_connection(fd, &found) || found != connection) {
        close(fd);
        return -ESTALE;
    }
    snprintf(link, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static int unmount_own(const char *path, unsigned connection, int flags)
{
    char link[32];
    int fd = open_mount(path, connection, link);
    if (fd < 0)
        return fd;
    int result = umount2(link, flags) ? -errno : 0;
    close(fd);
    return result;
}

bool mountpoint_is(const char *path, unsigned connection)
{
    char link[32];
    int fd = open_mount(path, connection, link);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

int mountpoint_detach(const char *path, unsigned connection)
{
    int result = unmount_own(path, connection, MNT_DETACH);
    return result == -EPERM ? run_fusermount(path) : result;
}

int mountpoint_abort(const char *path, unsigned connection, int abort_fd)
{
    if (abort_fd >= 0 && write(abort_fd, "1", 1) == 1)
        return 0;
    /* Aborts first of all; that the mount is then found busy does not matter, and it is, since we
     * hold it. */
    int result = unmount_own(path, connection, MNT_FORCE);
    return result == -EBUSY ? 0 : result;
}

/* What mountpoint_check_alone looks for in the table. */
struct alone {
    const char *path, *source;
    unsigned connection;
    bool seen; /* our own */
    struct unshard_error *error;
};

static int check_alone(void *context, const struct mounted *mounted)
{
    struct alone *alone = context;
    bool own = mounted->major_number == 0 && mounted->minor_number == alone->connection &&
               !strncmp(mounted->type, "fuse", 4);
    bool here = !strcmp(mounted->mountpoint, alone->path);
    if (own && here)
        alone->seen = true;
    else if (own)
        return check_apart(mounted->mountpoint, alone->source, alone->error);
    else if (here && !alone->seen && mount_table_is_unshard(mounted->type))
        return unshard_error_set(alone->error, "mountpoint", EBUSY,
                                 "another 'unshard mount' has mounted there first");
    return 0;
}

int mountpoint_check_alone(const char *path, const char *source, unsigned connection,
                           struct unshard_error *error)
{
    struct alone alone = {path, source, connection, false, error};
    int result = mount_table_each(check_alone, &alone);
    if (!result && !alone.seen)
        return unshard_error_set(error, "mount", ENOENT,
                                 "the new mount is not in the table of mounts");
    return result;
}

int mountpoint_open_abort(unsigned connection)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", connection);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
