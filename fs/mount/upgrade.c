/* SPDX-License-Identifier: MIT */
#include "fs/mount/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/host/daemon.h"
#include "fs/host/log.h"
#include "fs/host/spawn.h"
#include "fs/mount/succession.h"

#define REHEARSAL_SECONDS 30
#define END_STEPS 100
#define END_STEP_MS 10

/* ---- the rehearsal -----------------------------------------------------------------------------
 */

/* One that hangs with its storage is left behind. */
static void end_process(pid_t process)
{
    kill(process, SIGKILL);
    for (unsigned i = 0; i < END_STEPS && waitpid(process, NULL, WNOHANG) == 0; i++)
        poll(NULL, 0, END_STEP_MS);
}

static int make_link(int ends[2])
{
    struct timeval most = {.tv_sec = REHEARSAL_SECONDS};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -errno;
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    return 0;
}

static pid_t start_rehearsal(const struct upgrade *upgrade, int program, int talk, int device)
{
    int descriptors[SUCCESSION_DESCRIPTORS];
    char variable[SUCCESSION_VARIABLE], path[32];
    struct succession given = succession_none(ROLE_REHEARSAL);
    given.talk = talk;
    given.handed[HANDED_DEVICE] = device;
    given.handed[HANDED_KEEP] = unshard_keep_descriptor(upgrade->filesystem->keep);
    given.handed[HANDED_SOURCE] = unshard_tree_directory(upgrade->filesystem->tree);
    given.generation = upgrade->supervised->generation + 1;
    succession_write(&given, variable);
    size_t count = succession_descriptors(&given, descriptors);
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    return spawn_process(path, (char *const *)(uintptr_t)upgrade->start->argv, variable,
                         descriptors, count);
}

/* Whether it could go on with the mount; else words tell why not. */
static bool hear_rehearsal(int end, pid_t process, char words[DAEMON_WORDS_CAPACITY])
{
    struct daemon_link link = {.fd = end};
    bool could = daemon_wait(&link, words);
    end_process(process);
    if (!could && !*words)
        snprintf(words, DAEMON_WORDS_CAPACITY,
                 "the program said nothing within %d s, or ended without a word: is it an unshard "
                 "that knows the options of the mount?",
                 REHEARSAL_SECONDS);
    return could;
}

static int rehearse(const struct upgrade *upgrade, int program, char words[DAEMON_WORDS_CAPACITY])
{
    int ends[2] = {-1, -1}, device = open("/dev/null", O_RDWR | O_CLOEXEC);
    int result = device < 0 ? -errno : make_link(ends);
    if (result == 0) {
        pid_t process = start_rehearsal(upgrade, program, ends[1], device);
        close(ends[1]);
        result = process < 0 ? process : 0;
        if (result == 0 && !hear_rehearsal(ends[0], process, words))
            result = -EPROTO;
        close(ends[0]);
    }
    if (device >= 0)
        close(device);
    if (result && result != -EPROTO)
        snprintf(words, DAEMON_WORDS_CAPACITY, "the program cannot be started: %s",
                 strerror(-result));
    return result;
}

/* ---- what is asked for -------------------------------------------------------------------------
 */

/* Which only root and this user can change. */
static bool is_trusted_program(int program)
{
    struct stat about;
    return fstat(program, &about) == 0 && S_ISREG(about.st_mode) &&
           (about.st_uid == 0 || about.st_uid == geteuid()) &&
           !(about.st_mode & (S_IWGRP | S_IWOTH)) &&
           faccessat(program, "", X_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
}

static int open_program(const char *path, char words[DAEMON_WORDS_CAPACITY])
{
    int program = *path == '/' ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (program >= 0 && is_trusted_program(program))
        return program;
    snprintf(words, DAEMON_WORDS_CAPACITY, "%.1024s is no program that the daemon would run%s%s",
             path, program < 0 && *path == '/' ? ": " : "",
             program < 0 && *path == '/' ? strerror(errno) : "");
    if (program >= 0)
        close(program);
    return -EACCES;
}

/* By one thread at a time, as `decide`: see control.c. */
static int try_program(void *context, const char *path, char *reason, size_t capacity)
{
    struct upgrade *upgrade = context;
    char words[DAEMON_WORDS_CAPACITY] = "";
    if (upgrade->program >= 0) {
        snprintf(reason, capacity, "another program is about to take over");
        return -EBUSY;
    }
    int program = open_program(path, words), result = program < 0 ? program : 0;
    if (!result)
        result = rehearse(upgrade, program, words);
    if (!result)
        upgrade->program = program;
    else if (program >= 0)
        close(program);
    if (result)
        log_line(LOG_WARNING, "mount", "event=upgrade-refused message=\"%s\"", words);
    snprintf(reason, capacity, "%s", words);
    return result;
}

static void decide(void *context, bool wanted)
{
    struct upgrade *upgrade = context;
    int result = wanted ? supervised_upgrade(upgrade->supervised, upgrade->program) : -EINTR;
    if (result == 0)
        return;
    log_line(
        LOG_WARNING, "mount",
        "event=upgrade-given-up errno=%d message=\"nobody waits for it, or nobody watches over "
        "the daemon just now\"",
        -result);
    close(upgrade->program);
    upgrade->program = -1;
}

void upgrade_init(struct upgrade *upgrade, struct filesystem *filesystem,
                  struct supervised *supervised, const struct start *start)
{
    *upgrade = (struct upgrade){
        .filesystem = filesystem, .supervised = supervised, .start = start, .program = -1};
    filesystem->upgrade_try = try_program;
    filesystem->upgrade_decide = decide;
    filesystem->upgrade_context = upgrade;
}

void upgrade_release(struct upgrade *upgrade)
{
    if (!upgrade->filesystem)
        return;
    if (upgrade->program >= 0)
        close(upgrade->program);
    upgrade->filesystem = NULL;
}
