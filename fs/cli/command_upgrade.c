/* SPDX-License-Identifier: MIT
 *
 * unshard upgrade: has this program go on with mounts that are in use. */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"
#include "fs/cli/status_client.h"
#include "fs/host/bounded_run.h"
#include "fs/host/mount_table.h"
#include "fs/kernel/control_protocol.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS 10000000L
#define TAKEOVER_SECONDS 30.0
#define ALL_MS 90000 /* the daemon tries the program for a third of it at most */

struct order {
    const char *mountpoint;
    bool json;
    char program[CONTROL_COMPONENT_CAPACITY];
};

/* Which daemon serves a mount. */
struct served {
    pid_t pid;
    unsigned restarts;
    bool upgraded; /* the last restart was an upgrade */
    char version[64];
};

/* after: NULL when it was not upgraded, for that reason. */
static void print_outcome(const struct order *order, const struct served *before,
                          const struct served *after, const char *reason)
{
    if (!order->json && after) {
        printf("%s: upgraded from %s to %s (process %d)\n", order->mountpoint, before->version,
               after->version, (int)after->pid);
    } else if (!order->json) {
        fprintf(stderr, "unshard upgrade: %s: %s\n", order->mountpoint, reason);
    } else {
        cJSON *out = cJSON_CreateObject();
        cJSON_AddStringToObject(out, "mountpoint", order->mountpoint);
        cJSON_AddBoolToObject(out, "upgraded", after != NULL);
        cJSON_AddItemToObject(out, "from",
                              before ? cJSON_CreateString(before->version) : cJSON_CreateNull());
        cJSON_AddItemToObject(out, "to",
                              after ? cJSON_CreateString(after->version) : cJSON_CreateNull());
        cJSON_AddItemToObject(out, "reason",
                              reason ? cJSON_CreateString(reason) : cJSON_CreateNull());
        char *text = cJSON_PrintUnformatted(out);
        if (text)
            fputs(text, stdout);
        cJSON_free(text);
        cJSON_Delete(out);
    }
}

static int refuse(const struct order *order, const struct served *before, const char *reason)
{
    print_outcome(order, before, NULL, reason);
    return EXIT_STATUS_FAILED;
}

/* ---- one mount, in a process of its own: each step of it asks the mount ------------------------
 */

/* 0 or a positive errno with a message. */
static int read_served(const char *mountpoint, struct served *out, char *message, size_t capacity)
{
    int number = EPROTO;
    char *json = status_client_read(mountpoint, message, capacity, &number);
    struct unshard_status *status = json ? unshard_status_parse(json) : NULL;
    if (json && !status)
        snprintf(message, capacity, "its status makes no sense");
    if (status) {
        *out = (struct served){.pid = status->pid,
                               .restarts = status->restarts,
                               .upgraded = status->restart_reason &&
                                           strcmp(status->restart_reason, "upgraded") == 0};
        snprintf(out->version, sizeof out->version, "%s", status->version ? status->version : "?");
        number = 0;
    }
    unshard_status_free(status);
    free(json);
    return number;
}

/* 0 or a positive errno; then reason says why. */
static int ask(const struct order *order, char *reason, size_t capacity)
{
    char path[PATH_MAX];
    struct control_message message = {0};
    memcpy(message.component, order->program, sizeof message.component);
    snprintf(path, sizeof path, "%s/.unshard/status.json", order->mountpoint);
    int fd = open(path, O_RDONLY | O_CLOEXEC), number = fd < 0 ? errno : 0;
    if (number == 0 && ioctl(fd, CONTROL_UPGRADE, &message))
        number = errno;
    if (fd >= 0)
        close(fd);
    if (number == EPERM)
        snprintf(reason, capacity, "only root and the user who mounted it may do that");
    else if (number == ENOTTY)
        snprintf(reason, capacity,
                 "its daemon is of a version that no other can follow; unmount it, and mount it "
                 "again");
    else if (number)
        snprintf(reason, capacity, "%s", strerror(number));
    else if (message.ticket)
        snprintf(reason, capacity, "refused, and served as before: %.900s", message.component);
    return number ? number : (int)message.ticket;
}

static int wait_for_successor(const struct order *order, const struct served *before,
                              struct served *after)
{
    char message[1200];
    double end = monotonic_seconds() + TAKEOVER_SECONDS;
    do {
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        if (read_served(order->mountpoint, after, message, sizeof message) == 0 &&
            after->restarts > before->restarts && after->upgraded)
            return 0;
    } while (monotonic_seconds() < end);
    return ETIMEDOUT;
}

static int upgrade(void *context)
{
    const struct order *order = context;
    struct served before = {0}, after = {0};
    char reason[1200];
    if (read_served(order->mountpoint, &before, reason, sizeof reason))
        return refuse(order, NULL, reason);
    if (ask(order, reason, sizeof reason))
        return refuse(order, &before, reason);
    if (wait_for_successor(order, &before, &after))
        return refuse(order, &before,
                      "no daemon of this version has taken over; its log tells why");
    print_outcome(order, &before, &after, NULL);
    return EXIT_STATUS_OK;
}

static int upgrade_bounded(struct order *order)
{
    int status = bounded_run(upgrade, order, -1, ALL_MS);
    if (status >= 0)
        return status;
    return refuse(order, NULL,
                  status == -ETIMEDOUT ? "it does not answer; its daemon hangs, or its source does"
                                       : strerror(-status));
}

/* ---- which mounts ------------------------------------------------------------------------------
 */

struct places {
    char **paths;
    size_t count;
};

static int add_place(void *context, const struct mounted *mounted)
{
    struct places *places = context;
    if (!mount_table_is_unshard(mounted->type))
        return 0;
    char **grown = realloc(places->paths, (places->count + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    places->paths = grown;
    grown[places->count] = strdup(mounted->mountpoint);
    return grown[places->count++] ? 0 : -ENOMEM;
}

/* The first failure, if there is any, of all that are tried. */
static int upgrade_all(struct order *order)
{
    struct places places = {0};
    int result = mount_table_each(add_place, &places), status = EXIT_STATUS_OK;
    if (order->json)
        fputs("[", stdout);
    for (size_t i = 0; i < places.count && places.paths[i]; i++) {
        if (order->json && i > 0)
            fputs(",\n", stdout);
        order->mountpoint = places.paths[i];
        int one = upgrade_bounded(order);
        status = status == EXIT_STATUS_OK ? one : status;
    }
    if (order->json)
        fputs("]", stdout);
    for (size_t i = 0; i < places.count; i++)
        free(places.paths[i]);
    free(places.paths);
    if (result == 0)
        return status;
    fprintf(stderr, "unshard upgrade: cannot list the mounts: %s\n", strerror(-result));
    return EXIT_STATUS_FAILED;
}

static int find_program(struct order *order)
{
    ssize_t length = readlink("/proc/self/exe", order->program, sizeof order->program - 1);
    if (length < 0) {
        fprintf(stderr, "unshard upgrade: cannot find this program: %s\n", strerror(errno));
        return EXIT_STATUS_FAILED;
    }
    order->program[length] = '\0';
    return EXIT_STATUS_OK;
}

int command_upgrade(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("upgrade", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    struct order order = {.mountpoint = options.mount.source, .json = options.json};
    if (result == 0 && options.all == (order.mountpoint != NULL)) {
        fputs("unshard upgrade: name a mount point, or say --all\n", stderr);
        status = EXIT_STATUS_USAGE;
    } else if (result == 0) {
        status = find_program(&order);
        if (status == EXIT_STATUS_OK)
            status = options.all ? upgrade_all(&order) : upgrade_bounded(&order);
        if (order.json)
            puts("");
    }
    options_release(&options);
    return status;
}
