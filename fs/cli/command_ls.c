/* SPDX-License-Identifier: MIT
 *
 * unshard ls: what a mount of a checkpoint would hold. Works without a mount. */
#include "fs/cli/commands.h"
#include "fs/cli/options.h"

#include <cjson/cJSON.h>
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

/* "[4096, 64]" */
static void print_shape(const cJSON *shape)
{
    const cJSON *number;
    const char *separator = "[";
    cJSON_ArrayForEach(number, shape)
    {
        printf("%s%.0f", separator, number->valuedouble);
        separator = ", ";
    }
    fputs(shape && shape->child ? "]" : "[]", stdout);
}

static void print_tensors(const char *json)
{
    char quoted[QUOTED_CAPACITY], size[UNSHARD_HUMAN_CAPACITY];
    cJSON *root = cJSON_Parse(json);
    const cJSON *component, *tensor;
    cJSON_ArrayForEach(component, cJSON_GetObjectItemCaseSensitive(root, "components"))
    {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(component, "name");
        printf("\n%s:\n", quote(quoted, cJSON_IsString(name) ? name->valuestring : "?"));
        cJSON_ArrayForEach(tensor, cJSON_GetObjectItemCaseSensitive(component, "tensors"))
        {
            const cJSON *tensor_name = cJSON_GetObjectItemCaseSensitive(tensor, "name");
            const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(tensor, "dtype");
            const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(tensor, "bytes");
            printf("  %s  %s ",
                   quote(quoted, cJSON_IsString(tensor_name) ? tensor_name->valuestring : "?"),
                   cJSON_IsString(dtype) ? dtype->valuestring : "?");
            print_shape(cJSON_GetObjectItemCaseSensitive(tensor, "shape"));
            printf("  %s\n", unshard_human_bytes(
                                 size, cJSON_IsNumber(bytes) ? (uint64_t)bytes->valuedouble : 0));
        }
    }
    cJSON_Delete(root);
}

static int print_all(const struct unshard_checkpoint *checkpoint, const struct options *options)
{
    struct unshard_error error = {0};
    char *json = NULL;
    if (options->json || options->tensors) {
        json = unshard_checkpoint_describe_json(checkpoint, options->tensors, &error);
        if (!json) {
            fprintf(stderr, "unshard ls: %s\n", error.message[0] ? error.message : "out of memory");
            return EXIT_STATUS_FAILED;
        }
    }
    if (options->json)
        puts(json);
    else
        print_table(checkpoint);
    if (options->tensors && !options->json)
        print_tensors(json);
    free(json);
    for (uint32_t i = 0; i < unshard_component_count(checkpoint); i++)
        if (unshard_component(checkpoint, i).error)
            return EXIT_STATUS_UNWELL;
    uint32_t problem_count;
    unshard_checkpoint_problems(checkpoint, &problem_count);
    return problem_count > 0 ? EXIT_STATUS_UNWELL : EXIT_STATUS_OK;
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
