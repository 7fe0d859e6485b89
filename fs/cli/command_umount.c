/* SPDX-License-Identifier: MIT
 *
 * unshard umount. The mount is looked up in the kernel's table and never touched, except for its
 * status, which tells the process that serves it: so a dead mount can be cleared too. */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/status_client.h"
#include "fs/host/bounded_run.h"
#include "fs/host/monotonic.h"
#include "fs/host/mount_table.h"
#include "fs/host/mountpoint.h"
#include "fs/host/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* All that the command takes. A daemon ends within its own deadlines; the source may still hold it
 * in a read. */
#define TOTAL_MS 30000
#define BUSY_RETRIES 20
#define BUSY_WAIT_NS 50000000

static bool has_name(pid_t pid, const char *name)
{
    char path[64], line[64] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    FILE *stream = fopen(path, "re");
    if (!stream)
        return false;
    bool same = fgets(line, sizeof line, stream) && strncmp(line, name, strlen(name)) == 0;
    fclose(stream);
    return same;
}

/* What the status tells of the process that serves the mount. */
struct server {
    int fd; /* of the process, or -1: it is unknown, or in another namespace of process numbers,
               where the number means another process */
    bool silent; /* it does not answer */
};

static struct server find_server(const char *mountpoint)
{
    char message[1200];
    int number;
    char *json = bounded_read_status(mountpoint, ANSWER_MS, message, sizeof message, &number);
    struct server server = {.fd = -1, .silent = !json && number == ETIMEDOUT};
    pid_t pid = json ? status_client_daemon(json) : 0;
    free(json);
    if (pid > 0)
        server.fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (server.fd >= 0 && !has_name(pid, "unshard")) {
        close(server.fd);
        server.fd = -1;
    }
    return server;
}

/* Starts fusermount3, which may unmount what its caller mounted, with its errors going to `output`.
 */
static int spawn_fusermount(char *path, bool lazy, int output, pid_t *pid)
{
    char program[] = "fusermount3", unmount[] = "-u", lazily[] = "-z", end[] = "--";
    char *arguments[] = {
        program, unmount, lazy ? lazily : end, lazy ? end : path, lazy ? path : NULL, NULL};
    posix_spawn_file_actions_t actions;
    int result = posix_spawn_file_actions_init(&actions);
    if (result != 0)
        return -result;
    posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
    result = posix_spawnp(pid, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return -result;
}

/* Waits for fusermount3 and tells from its words why it failed: its exit status does not. */
static int wait_for_fusermount(pid_t pid, int errors)
{
    char words[512];
    size_t length = 0;
    ssize_t count;
    while (length < sizeof words - 1 &&
           (count = read(errors, words + length, sizeof words - 1 - length)) != 0) {
        if (count < 0 && errno != EINTR)
            break;
        length += count > 0 ? (size_t)count : 0;
    }
    words[length] = '\0';
    int status;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (strstr(words, "busy"))
        return -EBUSY;
    fputs(words, stderr);
    return -EPERM;
}

/* 0 or a negative errno. */
static int run_fusermount(const char *mountpoint, bool lazy)
{
    int ends[2];
    pid_t pid = -1;
    char *path = strdup(mountpoint);
    if (!path)
        return -ENOMEM;
    int result = pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0;
    if (result == 0) {
        result = spawn_fusermount(path, lazy, ends[1], &pid);
        close(ends[1]);
        if (result == 0)
            result = wait_for_fusermount(pid, ends[0]);
        close(ends[0]);
    }
    free(path);
    return result;
}

static int try_unmount(const char *mountpoint, bool lazy)
{
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    return errno == EPERM ? run_fusermount(mountpoint, lazy) : -errno;
}

/* Somebody who looks at a file in passing makes a mount busy for a moment. */
static int unmount(const char *mountpoint, bool lazy)
{
    int result = try_unmount(mountpoint, lazy);
    for (int i = 0; result == -EBUSY && i < BUSY_RETRIES; i++) {
        nanosleep(&(struct timespec){.tv_nsec = BUSY_WAIT_NS}, NULL);
        result = try_unmount(mountpoint, lazy);
    }
    return result;
}

/* What is to be done. */
struct removal {
    const char *mountpoint;
    bool lazy, force;
    bool silent; /* the daemon did not answer */
};

/* Ends the connection, so that nothing of it can hang, then takes the mount away. */
static int force(const char *mountpoint)
{
    struct mount_entry entry;
    int result = mountpoint_find(mountpoint, &entry);
    if (result < 0)
        return result;
    int abort_fd = mountpoint_open_abort(entry.minor_number);
    result = mountpoint_abort(mountpoint, entry.minor_number, abort_fd);
    if (abort_fd >= 0)
        close(abort_fd);
    /* While pages of a connection that goes on are waited for, one that was detached would make
     * every sync(2) of the machine wait too, with nobody able to find it any more. */
    result = result ? result : mountpoint_detach(mountpoint, entry.minor_number);
    return result == -ESTALE ? 0 : result; /* it has gone meanwhile */
}

/* In a process of its own, since it can wait for what waits for the daemon. A positive errno. */
static int take_away(void *argument)
{
    const struct removal *removal = argument;
    return removal->force ? -force(removal->mountpoint)
                          : -unmount(removal->mountpoint, removal->lazy);
}

static int report_failure(const struct removal *removal, int result)
{
    const char *path = removal->mountpoint;
    if (result == -ETIMEDOUT || (result == -EBUSY && removal->silent))
        fprintf(
            stderr,
            "unshard umount: %s did not answer within %d s; 'unshard umount --force %s' ends it "
            "all the same: whoever reads from it gets an error\n",
            path, (result == -EBUSY ? ANSWER_MS : TOTAL_MS) / 1000, path);
    else if (result == -EBUSY)
        fprintf(stderr,
                "unshard umount: %s is busy: something has a file of it open, or runs in it.\n"
                "'fuser -vm %s' tells who; 'unshard umount -l %s' detaches it all the same.\n",
                path, path, path);
    else if (result == -ENOENT)
        fputs("unshard umount: fusermount3 is not installed, and only root can do without\n",
              stderr);
    else if (removal->force && (result == -EPERM || result == -EACCES))
        fprintf(
            stderr,
            "unshard umount: %s: its connection cannot be ended, so it is left: that needs root, "
            "or /sys/fs/fuse/connections mounted and the user who made the mount\n",
            path);
    else
        fprintf(stderr, "unshard umount: %s: %s\n", path, strerror(-result));
    return EXIT_STATUS_FAILED;
}

/* A process's descriptor becomes readable when the process has ended. */
static int wait_for_daemon(const struct server *server, int64_t end)
{
    int count;
    if (server->silent) {
        fprintf(
            stderr,
            "unshard umount: unmounted, but its daemon did not answer within %d s; it ends when "
            "it runs on\n",
            ANSWER_MS / 1000);
        return EXIT_STATUS_FAILED;
    }
    if (server->fd < 0)
        return EXIT_STATUS_OK;
    do {
        struct pollfd entry = {.fd = server->fd, .events = POLLIN};
        int64_t left = end - monotonic_ms();
        count = poll(&entry, 1, left > 0 ? (int)left : 0);
    } while (count < 0 && errno == EINTR);
    if (count > 0)
        return EXIT_STATUS_OK;
    fprintf(stderr,
            "unshard umount: unmounted, but its daemon still runs after %d s; see the log\n",
            TOTAL_MS / 1000);
    return EXIT_STATUS_FAILED;
}

static int check_mounted(const char *mountpoint)
{
    struct mount_entry entry;
    int result = mountpoint_find(mountpoint, &entry);
    if (result == 0 && mount_table_is_unshard(entry.type))
        return 0;
    if (result == 0)
        fprintf(stderr, "unshard umount: %s is a mount of type %s, not of unshard\n", mountpoint,
                entry.type);
    else if (result == -ENOENT)
        fprintf(stderr, "unshard umount: nothing is mounted at %s\n", mountpoint);
    else
        fprintf(stderr, "unshard umount: cannot read the table of mounts: %s\n", strerror(-result));
    return -EINVAL;
}

/* A mount that hangs because its daemon was killed: see mountpoint_detach. */
static bool is_wedged(const char *mountpoint)
{
    struct mount_entry entry;
    return mountpoint_find(mountpoint, &entry) == 0 &&
           server_ask(mountpoint, ANSWER_MS) == SERVER_SILENT && !server_of(entry.minor_number);
}

static int remove_mount(const struct options *options, const char *mountpoint)
{
    struct removal removal = {mountpoint, options->lazy, options->force, false};
    struct server server = {.fd = -1};
    int64_t end = monotonic_ms() + TOTAL_MS;
    /* A lazy unmount is for mounts in trouble: no status is read first. */
    if (options->lazy && is_wedged(mountpoint))
        removal.force = true;
    if (!options->lazy && !options->force)
        server = find_server(mountpoint);
    removal.silent = server.silent;
    int result = -bounded_run(take_away, &removal, -1, (int)(end - monotonic_ms()));
    if (result > 0) /* bounded_run itself has failed */
        result = -result;
    int status = result < 0 ? report_failure(&removal, result) : wait_for_daemon(&server, end);
    if (server.fd >= 0)
        close(server.fd);
    return status;
}

static int unmount_and_wait(const struct options *options)
{
    char *mountpoint = mount_table_resolve(options->mount.source);
    if (!mountpoint) {
        fprintf(stderr, "unshard umount: %s: %s\n", options->mount.source, strerror(errno));
        return EXIT_STATUS_FAILED;
    }
    int status = EXIT_STATUS_FAILED;
    struct mount_entry entry;
    if (options->force && mountpoint_find(mountpoint, &entry) == -ENOENT) {
        status = EXIT_STATUS_OK; /* as it was to be */
    } else if (check_mounted(mountpoint) == 0) {
        status = remove_mount(options, mountpoint);
    }
    free(mountpoint);
    return status;
}

int command_umount(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("umount", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = unmount_and_wait(&options);
    options_release(&options);
    return status;
}
