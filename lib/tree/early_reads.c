/* SPDX-License-Identifier: MIT */
#include "tree/early_reads.h"

#include "base/parallel.h"
#include "tree/discovery.h"

#include <stdlib.h>
#include <string.h>

/* Of one file, whose bytes cost more than its latency if it is larger; and of all of them. That is
 * little beside what headers may take, and not counted there. */
#define MOST_BYTES (UINT64_C(1) << 20)
#define MOST_BYTES_OF_ALL (UINT64_C(16) << 20)

static bool is_index(const char *name)
{
    static const char json[] = ".json";
    struct weight_name parsed;
    size_t length = strlen(name), end = sizeof json - 1;
    return length > end && memcmp(name + length - end, json, end) == 0 &&
           weight_name_parse(name, &parsed) && parsed.kind == WEIGHT_NAME_INDEX &&
           format_of_extension(parsed.extension) != NULL;
}

static bool is_wanted(const struct scan_entry *entry)
{
    if (entry->kind != SCAN_FILE || entry->size > MOST_BYTES)
        return false;
    return format_describes_set(entry->name) || (!entry->set_aside && is_index(entry->name));
}

/* Room for one more, or false. */
static bool reserve(struct early_reads *reads, uint32_t *capacity)
{
    if (reads->count < *capacity)
        return true;
    uint32_t larger = *capacity * 2 + 16;
    struct early_read *grown = reallocarray(reads->reads, larger, sizeof *grown);
    if (grown == NULL)
        return false;
    reads->reads = grown;
    *capacity = larger;
    return true;
}

static void choose(struct discovery *discovery)
{
    struct early_reads *reads = &discovery->early;
    uint64_t bytes = 0;
    uint32_t capacity = 0;
    for (uint32_t i = 0; i < discovery->scan.count; i++) {
        const struct scan_entry *entry = &discovery->scan.entries[i];
        if (!is_wanted(entry) || !scan_is_focus(&discovery->scan, entry->parent))
            continue;
        bytes += entry->size;
        if (bytes > MOST_BYTES_OF_ALL || !reserve(reads, &capacity))
            return;
        reads->reads[reads->count++] = (struct early_read){.entry = i};
    }
}

static void read_number(void *context, uint32_t number)
{
    struct discovery *discovery = context;
    struct early_read *read = &discovery->early.reads[number];
    if (discovery_read_file(discovery, read->entry, MOST_BYTES, &read->bytes, &read->length) != 0)
        read->bytes = NULL;
}

void early_reads_make(struct discovery *discovery)
{
    choose(discovery);
    parallel_run(discovery->early.count, read_number, discovery);
}

static struct early_read *find(const struct early_reads *reads, uint32_t entry)
{
    uint32_t first = 0, end = reads->count;
    while (first < end) {
        uint32_t middle = first + (end - first) / 2;
        if (reads->reads[middle].entry == entry)
            return &reads->reads[middle];
        if (reads->reads[middle].entry < entry)
            first = middle + 1;
        else
            end = middle;
    }
    return NULL;
}

bool early_reads_take(struct early_reads *reads, uint32_t entry, uint64_t limit, char **out,
                      size_t *length)
{
    struct early_read *read = find(reads, entry);
    if (read == NULL || read->bytes == NULL || read->length > limit)
        return false;
    *out = read->bytes;
    *length = read->length;
    read->bytes = NULL;
    return true;
}

void early_reads_free(struct early_reads *reads)
{
    for (uint32_t i = 0; i < reads->count; i++)
        free(reads->reads[i].bytes);
    free(reads->reads);
    *reads = (struct early_reads){0};
}
