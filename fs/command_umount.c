/* SPDX-License-Identifier: MIT
 *
 * unshard umount. The mount is looked up in the kernel's table and never touched, except for its
 * status, which tells the process that serves it: so a dead mount can be cleared too. */
#include "fs/commands.h"
#include "fs/mount_table.h"
#include "fs/mountpoint.h"
#include "fs/options.h"
#include "fs/status_client.h"

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

/* A daemon ends within its own deadlines; the source may still hold it in a read. */
#define DAEMON_TIMEOUT_MS 30000
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

/* A descriptor of the process that serves the mount, or -1: it is unknown, or in another namespace
 * of process numbers, where the number means another process. */
static int open_daemon(const char *mountpoint)
{
    char message[512];
    int number;
    char *json = status_client_read(mountpoint, message, sizeof message, &number);
    if (!json)
        return -1;
    pid_t pid = status_client_daemon(json);
    free(json);
    if (pid <= 0)
        return -1;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0 && !has_name(pid, "unshard")) {
        close(fd);
        return -1;
    }
    return fd;
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

/* Ends the connection, so that nothing of it can hang, then takes the mount away. */
static int force(const char *mountpoint)
{
    struct mount_entry entry;
    int result = mountpoint_find(mountpoint, &entry);
    if (result < 0)
        return result;
    int abort_fd = mountpoint_open_abort(entry.minor_number);
    result = mountpoint_abort(mountpoint, abort_fd);
    if (abort_fd >= 0)
        close(abort_fd);
    /* umount2(MNT_FORCE) may have taken it away already. */
    if (mountpoint_find(mountpoint, &entry) == -ENOENT)
        return 0;
    int detached = mountpoint_detach(mountpoint);
    return result ? result : detached;
}

static int report_failure(const char *mountpoint, int result)
{
    if (result == -EBUSY)
        fprintf(stderr,
                "unshard umount: %s is busy: something has a file of it open, or runs in it.\n"
                "'fuser -vm %s' tells who; 'unshard umount -l %s' detaches it all the same.\n",
                mountpoint, mountpoint, mountpoint);
    else if (result == -ENOENT)
        fputs("unshard umount: fusermount3 is not installed, and only root can do without\n",
              stderr);
    else
        fprintf(stderr, "unshard umount: %s: %s\n", mountpoint, strerror(-result));
    return EXIT_STATUS_FAILED;
}

/* A process's descriptor becomes readable when the process has ended. */
static int wait_for_daemon(int daemon)
{
    struct pollfd poll_entry = {.fd = daemon, .events = POLLIN};
    int count;
    do
        count = poll(&poll_entry, 1, DAEMON_TIMEOUT_MS);
    while (count < 0 && errno == EINTR);
    if (count > 0)
        return EXIT_STATUS_OK;
    fprintf(stderr,
            "unshard umount: unmounted, but its daemon still runs after %d s; see the log\n",
            DAEMON_TIMEOUT_MS / 1000);
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
        /* A lazy unmount is for mounts in trouble: nothing of them is read first. */
        bool gently = !options->lazy && !options->force;
        int daemon = gently ? open_daemon(mountpoint) : -1;
        int result = options->force ? force(mountpoint) : unmount(mountpoint, options->lazy);
        if (result < 0)
            status = report_failure(mountpoint, result);
        else
            status = daemon >= 0 ? wait_for_daemon(daemon) : EXIT_STATUS_OK;
        if (daemon >= 0)
            close(daemon);
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
