/* SPDX-License-Identifier: MIT
 *
 * unshard list: the mounts that this process sees, from the kernel's table and from their own
 * status. All are asked at once, and one that does not answer is shown as that. */
#include "fs/cli/bounded_read.h"
#include "fs/cli/commands.h"
#include "fs/cli/options.h"
#include "fs/cli/progress.h"
#include "fs/cli/status_client.h"
#include "fs/cli/terminal.h"
#include "fs/host/mount_table.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One that does not answer is not to hold up the rest for long. */
#define LIST_MS 2000

struct listed {
    char *mountpoint, *source; /* owned */
    struct bounded_read read;
    struct unshard_status *status; /* owned; NULL: there was none */
    const char *state;             /* of the status, or why there is none */
};

struct list {
    struct listed *mounts;
    size_t count;
};

static void list_free(struct list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->mounts[i].mountpoint);
        free(list->mounts[i].source);
        unshard_status_free(list->mounts[i].status);
    }
    free(list->mounts);
}

static int add_mount(void *context, const struct mounted *mounted)
{
    struct list *list = context;
    if (!mount_table_is_unshard(mounted->type))
        return 0;
    struct listed *grown = realloc(list->mounts, (list->count + 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    list->mounts = grown;
    struct listed *added = &grown[list->count];
    *added = (struct listed){.mountpoint = strdup(mounted->mountpoint),
                             .source = strdup(mounted->source)};
    list->count++;
    return added->mountpoint && added->source ? 0 : -ENOMEM;
}

static const char *state_without_status(int number)
{
    switch (number) {
    case ENOTCONN:
    case ECONNABORTED:
        return "dead";
    case ETIMEDOUT:
        return "no answer";
    case EACCES:
        return "no permission";
    default:
        return "unknown";
    }
}

static void ask_all(struct list *list)
{
    double end = monotonic_seconds() + LIST_MS / 1000.0;
    for (size_t i = 0; i < list->count; i++)
        bounded_read_begin(&list->mounts[i].read, list->mounts[i].mountpoint);
    for (size_t i = 0; i < list->count; i++) {
        struct listed *mount = &list->mounts[i];
        char message[1200];
        int number;
        double left = end - monotonic_seconds();
        char *json =
            bounded_read_end(&mount->read, mount->mountpoint, left > 0 ? (int)(left * 1000) : 0,
                             message, sizeof message, &number);
        mount->status = json ? unshard_status_parse(json) : NULL;
        free(json);
        mount->state = mount->status ? unshard_mount_state_name(mount->status->state)
                                     : state_without_status(number);
    }
}

static const char *source_of(const struct listed *mount)
{
    return mount->status && mount->status->source ? mount->status->source : mount->source;
}

static void print_json(const struct list *list)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < list->count; i++) {
        const struct listed *mount = &list->mounts[i];
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "mountpoint", mount->mountpoint);
        cJSON_AddStringToObject(item, "source", source_of(mount));
        cJSON_AddStringToObject(item, "state", mount->state);
        if (mount->status) {
            cJSON_AddNumberToObject(item, "pid", mount->status->pid);
            cJSON_AddNumberToObject(item, "bytes_total", (double)mount->status->bytes_total);
            cJSON_AddNumberToObject(item, "bytes_published",
                                    (double)mount->status->bytes_published);
            cJSON_AddNumberToObject(item, "errors", mount->status->errors);
        }
        cJSON_AddItemToArray(array, item);
    }
    char *text = cJSON_Print(array);
    if (text) {
        terminal_put_json(stdout, text);
        putchar('\n');
    }
    cJSON_free(text);
    cJSON_Delete(array);
}

static void print_table(const struct list *list)
{
    char quoted[3][1100], total[UNSHARD_HUMAN_CAPACITY], bar[64];
    bool bars = terminal_columns(stdout) >= 100;
    size_t width = 10;
    for (size_t i = 0; i < list->count; i++) {
        size_t columns = unshard_human_columns(list->mounts[i].mountpoint);
        width = columns > width ? columns : width;
    }
    for (size_t i = 0; i < list->count; i++) {
        const struct listed *mount = &list->mounts[i];
        unshard_printable(quoted[0], sizeof quoted[0], mount->mountpoint,
                          strlen(mount->mountpoint));
        unshard_printable(quoted[1], sizeof quoted[1], source_of(mount), strlen(source_of(mount)));
        unshard_printable(quoted[2], sizeof quoted[2], mount->state, strlen(mount->state));
        size_t columns = unshard_human_columns(quoted[0]);
        printf("%s%*s  %-13s ", quoted[0], columns < width ? (int)(width - columns) : 0, "",
               quoted[2]);
        if (mount->status) {
            uint64_t done = mount->status->bytes_published, all = mount->status->bytes_total;
            if (bars)
                printf("%s ", unshard_human_bar(bar, sizeof bar, 16, done, all));
            printf("%3u %% of %10s  ", unshard_human_percent(done, all),
                   unshard_human_bytes(total, all));
        }
        printf("%s\n", quoted[1]);
    }
}

static int show(const struct options *options)
{
    struct list list = {0};
    int status = EXIT_STATUS_OK;
    int result = mount_table_each(add_mount, &list);
    if (result < 0) {
        fprintf(stderr, "unshard list: cannot read the table of mounts: %s\n", strerror(-result));
        list_free(&list);
        return EXIT_STATUS_FAILED;
    }
    ask_all(&list);
    if (options->json)
        print_json(&list);
    else
        print_table(&list);
    for (size_t i = 0; i < list.count; i++)
        if (!list.mounts[i].status || status_client_unwell(list.mounts[i].status))
            status = EXIT_STATUS_UNWELL;
    list_free(&list);
    return status;
}

int command_list(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("list", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = show(&options);
    options_release(&options);
    return status;
}
