/* SPDX-License-Identifier: MIT
 *
 * unshard evict, unshard warm: what is asked of the daemon of a mount. */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"
#include "fs/cli/status_client.h"
#include "fs/host/bounded_run.h"
#include "fs/kernel/control_protocol.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 20000000L
#define MOST_OPEN 32 /* directories at a time */
/* Dropping pages waits for reads that are under way; those have their own limits. */
#define SERVED_SECONDS 60.0

struct order {
    const char *command;   /* "evict" */
    unsigned long request; /* CONTROL_EVICT */
    const char *mountpoint, *component;
    bool json;
    struct unshard_status *status; /* before anything was asked for; owned. NULL: not known */
};

static int fail(const struct order *order, const char *message)
{
    fprintf(stderr, "unshard %s: %s\n", order->command, message);
    return EXIT_STATUS_FAILED;
}

static int fail_errno(const struct order *order, int number)
{
    char message[1024];
    const char *name = order->component;
    if (number == ENOENT)
        snprintf(message, sizeof message,
                 "%s: no component or directory '%.200s'; 'unshard status %s' lists the former",
                 order->mountpoint, name, order->mountpoint);
    else if (number == EPERM)
        snprintf(message, sizeof message, "%s: only root and the user who mounted it may do that",
                 order->mountpoint);
    else if (number == ENOTTY)
        snprintf(message, sizeof message, "%s: its daemon is of a version that cannot do that",
                 order->mountpoint);
    else
        snprintf(message, sizeof message, "%s: %s", order->mountpoint, strerror(number));
    return fail(order, message);
}

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

static bool is_meant(const struct order *order, const struct unshard_component_status *component)
{
    const char *meant = order->component;
    const char *path = component->view;
    if (!path && component->shard_count > 0)
        path = component->shards[0]->path;
    return !*meant || strcmp(component->name, meant) == 0 ||
           (component->view && strcmp(component->view, meant) == 0) ||
           (path && is_below(path, meant));
}

static uint32_t component_count(const struct order *order)
{
    return order->status ? order->status->component_count : 0;
}

/* Bytes of the components that are meant and now in the page cache. */
static uint64_t published(const struct order *order, uint64_t *total)
{
    uint64_t bytes = 0;
    *total = 0;
    for (uint32_t i = 0; i < component_count(order); i++) {
        const struct unshard_component_status *component = &order->status->components[i];
        if (!is_meant(order, component))
            continue;
        bytes += component->bytes_published;
        *total += component->bytes_total;
    }
    return bytes;
}

static void look_up(const struct order *order, const char *view)
{
    char path[PATH_MAX], quoted[1100];
    struct stat attributes;
    if (snprintf(path, sizeof path, "%s/%s", order->mountpoint, view) < PATH_MAX &&
        lstat(path, &attributes))
        fprintf(stderr, "unshard %s: %s: %s\n", order->command,
                unshard_quote(quoted, sizeof quoted, path, strlen(path)), strerror(errno));
}

/* The kernel may have forgotten a view without pages; looking it up makes it known again, without
 * which no page of it can be stored. A component that has no file of its own has its shards. */
static void look_up_views(const struct order *order)
{
    for (uint32_t i = 0; i < component_count(order); i++) {
        const struct unshard_component_status *component = &order->status->components[i];
        if (!is_meant(order, component))
            continue;
        if (component->view)
            look_up(order, component->view);
        for (uint32_t k = 0; !component->view && k < component->shard_count; k++)
            look_up(order, component->shards[k]->path);
    }
}

static int go_on(const char *path, const struct stat *attributes, int type, struct FTW *where)
{
    (void)path, (void)attributes, (void)type, (void)where;
    return 0; /* it has been looked up */
}

/* All that is in the directory that is meant, if it is one: the daemon knows what to warm by what
 * has been looked up. What is new is no surprise: there is nothing there of what is gone. */
static void look_up_directory(const struct order *order)
{
    char path[PATH_MAX];
    struct stat attributes;
    if (*order->component &&
        snprintf(path, sizeof path, "%s/%s", order->mountpoint, order->component) < PATH_MAX &&
        lstat(path, &attributes) == 0 && S_ISDIR(attributes.st_mode))
        nftw(path, go_on, MOST_OPEN, FTW_PHYS);
}

/* Asks, and waits until it is done. 0 or a positive errno. */
static int ask(const struct order *order, int fd)
{
    struct control_message message = {0};
    struct control_message served = {0};
    snprintf(message.component, sizeof message.component, "%s", order->component);
    if (ioctl(fd, order->request, &message))
        return errno;
    double end = monotonic_seconds() + SERVED_SECONDS;
    while (!ioctl(fd, CONTROL_SERVED, &served)) {
        if (served.ticket >= message.ticket)
            return 0;
        if (monotonic_seconds() > end)
            return ETIMEDOUT;
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
    return errno;
}

static int open_control(const char *mountpoint)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.unshard/status.json", mountpoint) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void print_result(const struct order *order, uint64_t bytes, uint64_t total)
{
    char bytes_text[UNSHARD_HUMAN_CAPACITY], total_text[UNSHARD_HUMAN_CAPACITY];
    const char *what = *order->component ? order->component : "all components";
    bool evict = order->request == CONTROL_EVICT;
    if (order->json) {
        cJSON *out = cJSON_CreateObject();
        cJSON_AddStringToObject(out, "command", order->command);
        cJSON_AddStringToObject(out, "component", order->component);
        cJSON_AddNumberToObject(out, "bytes", (double)bytes);
        cJSON_AddNumberToObject(out, "bytes_total", (double)total);
        char *text = cJSON_Print(out);
        if (text)
            puts(text);
        cJSON_free(text);
        cJSON_Delete(out);
    } else if (evict) {
        printf("%s: evicted %s, which had %s of %s in the page cache\n", order->mountpoint, what,
               unshard_human_bytes(bytes_text, bytes), unshard_human_bytes(total_text, total));
    } else {
        printf("%s: warming %s, %s; 'unshard wait %s' waits for it\n", order->mountpoint, what,
               unshard_human_bytes(total_text, total), order->mountpoint);
    }
}

/* What has been taken up to be warmed is told of now, too. */
static void read_status_again(struct order *order)
{
    char message[512];
    int number;
    char *json = status_client_read(order->mountpoint, message, sizeof message, &number);
    struct unshard_status *status = json ? unshard_status_parse(json) : NULL;
    free(json);
    if (!status)
        return;
    unshard_status_free(order->status);
    order->status = status;
}

/* In a process of its own: each step of it asks the mount. */
static int carry_out(void *argument)
{
    struct order *order = argument;
    bool warm = order->request == CONTROL_WARM;
    uint64_t total;
    int fd = open_control(order->mountpoint);
    int number = fd < 0 ? errno : 0;
    if (number == 0 && warm) {
        look_up_views(order);
        look_up_directory(order);
    }
    if (number == 0)
        number = ask(order, fd);
    if (fd >= 0)
        close(fd);
    uint64_t bytes = published(order, &total);
    if (number == 0 && warm) {
        read_status_again(order);
        published(order, &total);
    }
    if (number)
        return fail_errno(order, number);
    print_result(order, bytes, total);
    return EXIT_STATUS_OK;
}

static int ask_mount(struct order *order)
{
    char message[1200];
    int number;
    char *json =
        bounded_read_status(order->mountpoint, ANSWER_MS, message, sizeof message, &number);
    if (!json)
        return fail(order, message);
    order->status = unshard_status_parse(json);
    free(json);
    int status = bounded_run(carry_out, order, -1, (int)(SERVED_SECONDS * 1000) + ANSWER_MS);
    unshard_status_free(order->status);
    if (status >= 0)
        return status;
    if (status != -ETIMEDOUT)
        return fail_errno(order, -status);
    snprintf(message, sizeof message,
             "%s did not answer within %g s; if its daemon does not run on, 'unshard umount "
             "--force %s' ends it",
             order->mountpoint, SERVED_SECONDS + ANSWER_MS / 1000.0, order->mountpoint);
    return fail(order, message);
}

/* A directory is named with or without a slash at its end. */
static const char *trim(char *component)
{
    size_t length = component ? strlen(component) : 0;
    while (length > 1 && component[length - 1] == '/')
        component[--length] = '\0';
    return component ? component : "";
}

static int run(const char *command, unsigned long request, int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print(command, argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0) {
        const struct mount_options *mount = &options.mount;
        struct order order = {command,      request, mount->source, trim(mount->mountpoint),
                              options.json, NULL};
        status = ask_mount(&order);
    }
    options_release(&options);
    return status;
}

int command_evict(int argc, char **argv)
{
    return run("evict", CONTROL_EVICT, argc, argv);
}

int command_warm(int argc, char **argv)
{
    return run("warm", CONTROL_WARM, argc, argv);
}
