/* SPDX-License-Identifier: MIT
 *
 * unshard ls: what a mount of a checkpoint would hold. Works without a mount. */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTED_CAPACITY 1100
#define SHARDS_LISTED 20

static const char *quote(char out[QUOTED_CAPACITY], const char *name)
{
    return unshard_printable(out, QUOTED_CAPACITY, name, strlen(name));
}

static const char *view_path(const struct unshard_checkpoint *checkpoint,
                             const struct unshard_component *component)
{
    const char *path = unshard_view_path(checkpoint, component->view);
    return path ? path : "-";
}

static int longer(int width, const char *name)
{
    char quoted[QUOTED_CAPACITY];
    size_t columns = unshard_human_columns(quote(quoted, name));
    return columns > (size_t)width ? (int)columns : width;
}

/* printf pads by bytes; names are padded by characters. */
static void print_name(const char *name, int width)
{
    char quoted[QUOTED_CAPACITY];
    int columns = (int)unshard_human_columns(quote(quoted, name));
    printf("%s%*s  ", quoted, width > columns ? width - columns : 0, "");
}

/* Their names follow one pattern, so of many the first and the last tell enough. A component that
 * is one file already has no shards to tell of. */
static void print_shards(const struct unshard_checkpoint *checkpoint, uint32_t component)
{
    char quoted[QUOTED_CAPACITY], size[UNSHARD_HUMAN_CAPACITY];
    uint32_t count = unshard_component(checkpoint, component).shard_count;
    for (uint32_t i = 0; i < count && count > 1; i++) {
        if (count > SHARDS_LISTED && i == 3) {
            printf("  ... %u more\n", count - 4);
            i = count - 1;
        }
        struct unshard_shard shard = unshard_component_shard(checkpoint, component, i);
        printf("  %s  %s", quote(quoted, shard.path), unshard_human_bytes(size, shard.bytes));
        printf("%s%s\n", shard.error ? "  failed: " : "",
               shard.error ? quote(quoted, shard.error->message) : "");
    }
}

static void print_component(const struct unshard_checkpoint *checkpoint, uint32_t number,
                            int name_width, int path_width)
{
    char quoted[QUOTED_CAPACITY], size[UNSHARD_HUMAN_CAPACITY];
    struct unshard_component component = unshard_component(checkpoint, number);
    print_name(component.name, name_width);
    if (component.error) {
        printf("failed: %s\n", quote(quoted, component.error->message));
    } else {
        print_name(view_path(checkpoint, &component), path_width);
        printf("%-12s %6u %8llu %10s\n", component.format, component.shard_count,
               (unsigned long long)component.tensor_count,
               unshard_human_bytes(size, component.bytes));
    }
    print_shards(checkpoint, number);
    for (uint32_t i = 0; i < component.note_count; i++)
        printf("  note: %s\n", quote(quoted, component.notes[i]));
}

static void print_other_files(const struct unshard_checkpoint *checkpoint)
{
    char size[UNSHARD_HUMAN_CAPACITY];
    uint64_t bytes = 0;
    unsigned count = 0;
    for (uint32_t i = 0; i < unshard_node_count(checkpoint); i++) {
        const struct unshard_node *node = unshard_node(checkpoint, i);
        if (node->view == UNSHARD_NO_VIEW || unshard_view_component(checkpoint, node->view) >= 0)
            continue;
        bytes += node->size;
        count++;
    }
    printf("\n%u other file%s, %s\n", count, count == 1 ? "" : "s",
           unshard_human_bytes(size, bytes));
}

static void print_table(const struct unshard_checkpoint *checkpoint)
{
    char quoted[QUOTED_CAPACITY];
    int name_width = 9, path_width = 4;
    uint32_t count = unshard_component_count(checkpoint), problem_count, note_count;
    const struct unshard_error *problems = unshard_checkpoint_problems(checkpoint, &problem_count);
    const char *const *notes = unshard_checkpoint_notes(checkpoint, &note_count);
    for (uint32_t i = 0; i < count; i++) {
        struct unshard_component component = unshard_component(checkpoint, i);
        name_width = longer(name_width, component.name);
        path_width = longer(path_width, view_path(checkpoint, &component));
    }
    printf("%-*s  %-*s  %-12s %6s %8s %10s\n", name_width, "COMPONENT", path_width, "FILE",
           "FORMAT", "SHARDS", "TENSORS", "SIZE");
    for (uint32_t i = 0; i < count; i++)
        print_component(checkpoint, i, name_width, path_width);
    print_other_files(checkpoint);
    for (uint32_t i = 0; i < problem_count; i++)
        printf("problem: %s\n", quote(quoted, problems[i].message));
    for (uint32_t i = 0; i < note_count; i++)
        printf("note: %s\n", quote(quoted, notes[i]));
}

/* "  NAME  BF16 [4096, 64]  512.0 KiB" */
static void print_tensor(void *context, const struct unshard_tensor *tensor)
{
    char quoted[QUOTED_CAPACITY], size[UNSHARD_HUMAN_CAPACITY];
    (void)context;
    unshard_printable(quoted, sizeof quoted, tensor->name, tensor->name_length);
    printf("  %s  %s [", quoted, tensor->dtype);
    for (uint32_t i = 0; i < tensor->rank; i++)
        printf("%s%llu", i > 0 ? ", " : "", (unsigned long long)tensor->shape[i]);
    printf("]  %s\n", unshard_human_bytes(size, tensor->bytes));
}

static int print_tensors(const struct unshard_checkpoint *checkpoint, struct unshard_error *error)
{
    char quoted[QUOTED_CAPACITY];
    int result = 0;
    for (uint32_t i = 0; i < unshard_component_count(checkpoint) && result == 0; i++) {
        printf("\n%s:\n", quote(quoted, unshard_component(checkpoint, i).name));
        result = unshard_component_tensors(checkpoint, i, print_tensor, NULL, error);
    }
    return result;
}

static int print_json(const struct unshard_checkpoint *checkpoint, bool tensors,
                      struct unshard_error *error)
{
    char *json = unshard_checkpoint_describe_json(checkpoint, tensors, error);
    if (!json)
        return -ENOMEM;
    puts(json);
    free(json);
    return 0;
}

static bool is_well(const struct unshard_checkpoint *checkpoint)
{
    uint32_t problem_count;
    unshard_checkpoint_problems(checkpoint, &problem_count);
    for (uint32_t i = 0; i < unshard_component_count(checkpoint); i++)
        if (unshard_component(checkpoint, i).error)
            return false;
    return problem_count == 0;
}

static int print_all(const struct unshard_checkpoint *checkpoint, const struct options *options)
{
    struct unshard_error error = {0};
    int result = 0;
    if (options->json)
        result = print_json(checkpoint, options->tensors, &error);
    else
        print_table(checkpoint);
    if (options->tensors && !options->json)
        result = print_tensors(checkpoint, &error);
    if (result < 0) {
        fprintf(stderr, "unshard ls: %s\n", error.message);
        return EXIT_STATUS_FAILED;
    }
    return is_well(checkpoint) ? EXIT_STATUS_OK : EXIT_STATUS_UNWELL;
}

static int list(const struct options *options)
{
    struct unshard_checkpoint *checkpoint;
    struct unshard_error error = {0};
    if (unshard_checkpoint_open(options->mount.source, &options->mount.view, &checkpoint, &error) <
        0) {
        fprintf(stderr, "unshard ls: %s\n", error.message);
        return EXIT_STATUS_FAILED;
    }
    int status = print_all(checkpoint, options);
    unshard_checkpoint_close(checkpoint);
    return status;
}

int command_ls(int argc, char **argv)
{
    struct options options;
    int result = options_parse_or_print("ls", argc, argv, &options);
    int status = result < 0 ? EXIT_STATUS_USAGE : EXIT_STATUS_OK;
    if (result == 0)
        status = list(&options);
    options_release(&options);
    return status;
}
