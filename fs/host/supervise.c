/* SPDX-License-Identifier: MIT */
#include "fs/host/supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a shell says. */
#define NOT_RUNNABLE 126
#define NOT_FOUND 127

static const int passed_on[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};

int supervise_exec(char **command)
{
    execvp(command[0], command);
    int number = errno;
    fprintf(stderr, "unshard run: %s: %s\n", command[0], strerror(number));
    return number == ENOENT || number == ENOTDIR ? NOT_FOUND : NOT_RUNNABLE;
}

/* What a caller has set is the program's. */
struct inherited {
    sigset_t mask;
    struct sigaction child;
};

static void become(char **command, pid_t parent, const struct inherited *inherited)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(NOT_RUNNABLE);
    sigaction(SIGCHLD, &inherited->child, NULL);
    sigprocmask(SIG_SETMASK, &inherited->mask, NULL);
    _exit(supervise_exec(command));
}

/* false: the program runs on, or again. */
static bool has_ended(pid_t child, int *status)
{
    pid_t found;
    while ((found = waitpid(-1, status, WNOHANG | WUNTRACED)) > 0) {
        if (found != child)
            continue;
        if (!WIFSTOPPED(*status))
            return true;
        raise(SIGSTOP); /* whoever watches this process is to see it */
        kill(child, SIGCONT);
    }
    return false;
}

int supervise(char **command, int *status)
{
    sigset_t set;
    siginfo_t info;
    struct inherited before;
    struct sigaction told = {.sa_handler = SIG_DFL};
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof *passed_on; i++)
        sigaddset(&set, passed_on[i]);
    sigaction(SIGCHLD, &told, &before.child); /* who ignores it is told nothing */
    sigprocmask(SIG_BLOCK, &set, &before.mask);
    fflush(NULL);
    pid_t self = getpid(), child = fork();
    if (child == 0)
        become(command, self, &before);
    if (child < 0)
        return -errno;
    for (;;) {
        int number = sigwaitinfo(&set, &info);
        if (number == SIGCHLD && has_ended(child, status))
            return 0;
        if (number > 0 && number != SIGCHLD && info.si_code != SI_KERNEL)
            kill(child, number);
    }
}

void supervise_end_like(int status)
{
    if (!WIFSIGNALED(status))
        _exit(WEXITSTATUS(status));
    int number = WTERMSIG(status);
    sigset_t set;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none); /* the program's own tells more */
    signal(number, SIG_DFL);
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    _exit(128 + number);
}
