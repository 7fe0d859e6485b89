/* SPDX-License-Identifier: MIT */
#include "fs/host/spawn.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* This environment without the variable, then with it. The pointers alone are the caller's. */
static char **environment_with(const char *variable)
{
    size_t count = 0, name = strcspn(variable, "=") + 1;
    while (environ[count])
        count++;
    char **out = calloc(count + 2, sizeof *out);
    if (!out)
        return NULL;
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if (strncmp(environ[i], variable, name) != 0)
            out[used++] = environ[i];
    out[used] = (char *)(uintptr_t)variable;
    return out;
}

static int set_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &all);
    return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

/* To itself: that it is not closed on exec there. */
static int hand_on(posix_spawn_file_actions_t *actions, const int *descriptors, size_t count)
{
    int result = 0;
    for (size_t i = 0; i < count && result == 0; i++)
        result = posix_spawn_file_actions_adddup2(actions, descriptors[i], descriptors[i]);
    return result;
}

pid_t spawn_process(const char *executable, char *const *arguments, const char *variable,
                    const int *descriptors, size_t count)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t process = 0;
    char **environment = environment_with(variable);
    if (!environment)
        return -ENOMEM;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    int result = hand_on(&actions, descriptors, count);
    if (result == 0)
        result = set_signals(&attributes);
    if (result == 0)
        result = posix_spawn(&process, executable, &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    free(environment);
    return result ? -result : process;
}
