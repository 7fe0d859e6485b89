/* SPDX-License-Identifier: MIT */
#include "tree/tensor_owners.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

#define NO_MEMBER UINT32_MAX
/* So many names of tensors are told, the others are counted. */
#define NAMES_TOLD 3U

struct owners {
    struct discovery *discovery;
    struct candidate *candidate;
    struct header *headers;     /* of its members */
    struct string_map names;    /* of tensors -> their places in `members` */
    uint32_t *members;          /* which member each is taken from */
    uint32_t *others;           /* which one holds it, too, and 1; 0: none */
    struct string_map listed;   /* names in the index -> their entries */
    uint32_t *members_of_index; /* of each file that the index names: which member it is */
    bool doubled;               /* a tensor was in two members */
};

static size_t count_tensors(const struct owners *owners)
{
    size_t count = 0;
    for (uint32_t i = 0; i < owners->candidate->member_count; i++)
        count += owners->headers[i].set.tensor_count;
    return count;
}

/* ---- what the index says ----------------------------------------------------------------------
 */

static int compare_entry_numbers(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

static int find_members_of_index(struct owners *owners)
{
    const struct candidate *candidate = owners->candidate;
    struct scan *scan = &owners->discovery->scan;
    uint32_t(*sorted)[2] = calloc(candidate->member_count + 1U, sizeof *sorted);
    owners->members_of_index =
        calloc(candidate->index.file_count + 1U, sizeof *owners->members_of_index);
    if (sorted == NULL || owners->members_of_index == NULL) {
        free(sorted);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < candidate->member_count; i++) {
        sorted[i][0] = candidate->members[i];
        sorted[i][1] = i;
    }
    qsort(sorted, candidate->member_count, sizeof *sorted, compare_entry_numbers);
    for (size_t i = 0; i < candidate->index.file_count; i++) {
        uint32_t key[2] = {scan_find(scan, candidate->directory, candidate->index.files[i]), 0};
        const uint32_t *found =
            bsearch(key, sorted, candidate->member_count, sizeof *sorted, compare_entry_numbers);
        owners->members_of_index[i] = found != NULL ? found[1] : NO_MEMBER;
    }
    free(sorted);
    return 0;
}

static int read_index(struct owners *owners)
{
    const struct index_file *index = &owners->candidate->index;
    for (size_t i = 0; i < index->entry_count; i++)
        if (string_map_add(&owners->listed, index->entries[i].tensor,
                           index->entries[i].tensor_length, (uint32_t)i, NULL) < 0)
            return -ENOMEM;
    return find_members_of_index(owners);
}

/* The member in which the index has the tensor; NO_MEMBER: it does not say. */
static uint32_t indexed_member(const struct owners *owners, const struct tensor *tensor)
{
    uint32_t entry;
    if (!string_map_find(&owners->listed, tensor->name, tensor->name_length, &entry))
        return NO_MEMBER;
    return owners->members_of_index[owners->candidate->index.entries[entry].file];
}

/* ---- what the headers say ---------------------------------------------------------------------
 */

static int take_tensor(struct owners *owners, const struct tensor *tensor, uint32_t member)
{
    uint32_t place = 0, next = (uint32_t)owners->names.count;
    int added = string_map_add(&owners->names, tensor->name, tensor->name_length, next, &place);
    if (added < 0)
        return added;
    if (added == 1) {
        owners->members[next] = member;
    } else if (tensor->part == NULL) {
        owners->others[place] = member + 1;
        owners->doubled = true;
        if (indexed_member(owners, tensor) == member)
            owners->members[place] = member;
    }
    return 0;
}

static int find_owners(struct owners *owners)
{
    size_t count = count_tensors(owners) + 1;
    owners->members = calloc(count, sizeof *owners->members);
    owners->others = calloc(count, sizeof *owners->others);
    int result = owners->members == NULL || owners->others == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; i < owners->candidate->member_count && result == 0; i++) {
        const struct tensor_set *set = &owners->headers[i].set;
        for (size_t t = 0; t < set->tensor_count && result == 0; t++)
            result = take_tensor(owners, &set->tensors[t], i);
    }
    return result;
}

static const char *path_of_member(const struct owners *owners, uint32_t member)
{
    return owners->discovery->checkpoint->files[owners->headers[member].file].path;
}

/* Of a tensor that several members hold the index must say which is meant. */
static int check_doubled(const struct owners *owners, struct unshard_error *why)
{
    char quoted[128];
    for (uint32_t i = 0; i < owners->candidate->member_count; i++) {
        const struct tensor_set *set = &owners->headers[i].set;
        for (size_t t = 0; t < set->tensor_count; t++) {
            const struct tensor *tensor = &set->tensors[t];
            uint32_t place = 0;
            string_map_find(&owners->names, tensor->name, tensor->name_length, &place);
            if (owners->others[place] == 0 ||
                owners->members[place] == indexed_member(owners, tensor))
                continue;
            return error_set(why, "duplicate-tensor", EINVAL,
                             "tensor \"%s\" is in both %s and %s, and no index says which is meant",
                             error_quote(quoted, sizeof quoted, tensor->name, tensor->name_length),
                             path_of_member(owners, owners->members[place]),
                             path_of_member(owners, owners->others[place] - 1));
        }
    }
    return 0;
}

/* Each tensor stays in the set of its owner alone. */
static void drop_others(struct owners *owners)
{
    for (uint32_t i = 0; i < owners->candidate->member_count; i++) {
        struct tensor_set *set = &owners->headers[i].set;
        size_t kept = 0;
        for (size_t t = 0; t < set->tensor_count; t++) {
            const struct tensor *tensor = &set->tensors[t];
            uint32_t place = 0;
            string_map_find(&owners->names, tensor->name, tensor->name_length, &place);
            if (tensor->part != NULL || owners->members[place] == i)
                set->tensors[kept++] = *tensor;
        }
        set->tensor_count = kept;
    }
}

/* ---- where they disagree ----------------------------------------------------------------------
 */

static void note_disagreements(struct owners *owners)
{
    const struct index_file *index = &owners->candidate->index;
    struct note_list *notes = &owners->candidate->notes;
    struct arena *arena = &owners->discovery->checkpoint->arena;
    size_t elsewhere = 0, absent = 0;
    char quoted[128];
    struct text names = {0};
    for (size_t i = 0; i < index->entry_count; i++) {
        const struct index_entry *entry = &index->entries[i];
        uint32_t place = 0;
        if (string_map_find(&owners->names, entry->tensor, entry->tensor_length, &place)) {
            elsewhere += owners->members[place] != owners->members_of_index[entry->file];
        } else if (absent++ < NAMES_TOLD) {
            error_quote(quoted, sizeof quoted, entry->tensor, entry->tensor_length);
            text_printf(&names, "%s%s", absent > 1 ? ", " : "", quoted);
        }
    }
    if (owners->doubled)
        note_add(notes, arena, "Tensors are in two shards; the index says which are meant.");
    if (absent > 0)
        note_add(notes, arena,
                 "%s names %zu tensor%s that no shard holds (%s%s): a loader does not find them "
                 "here, nor on disk.",
                 owners->discovery->scan.entries[owners->candidate->index_entry].path, absent,
                 absent == 1 ? "" : "s", names.data != NULL ? names.data : "",
                 absent > NAMES_TOLD ? ", ..." : "");
    if (elsewhere > 0)
        note_add(notes, arena,
                 "%zu tensors are in another shard than the index says; the shards decide.",
                 elsewhere);
    if (owners->names.count > index->entry_count - absent)
        note_add(notes, arena,
                 "%zu tensors are in the shards but not in the index; they are included.",
                 owners->names.count - (index->entry_count - absent));
    text_free(&names);
}

/* An index of which nothing is there is one of something else. */
static int check_names(const struct owners *owners, struct unshard_error *why)
{
    const struct candidate *candidate = owners->candidate;
    const struct index_file *index = &candidate->index;
    uint32_t place = 0;
    for (size_t i = 0; i < index->entry_count; i++)
        if (string_map_find(&owners->names, index->entries[i].tensor,
                            index->entries[i].tensor_length, &place))
            return 0;
    if (index->entry_count == 0 || owners->names.count == 0)
        return 0;
    return error_set(why, "other-tensors", EINVAL, "%s names no tensor that its shards hold",
                     owners->discovery->scan.entries[candidate->index_entry].path);
}

int tensor_owners_settle(struct discovery *discovery, struct candidate *candidate,
                         struct unshard_error *why)
{
    struct owners owners = {
        .discovery = discovery, .candidate = candidate, .headers = candidate->headers};
    bool indexed = candidate->index_entry != SCAN_NONE;
    int result = indexed ? read_index(&owners) : 0;
    if (result == 0)
        result = find_owners(&owners);
    if (result == 0 && indexed)
        result = check_names(&owners, why);
    if (result == 0 && owners.doubled)
        result = check_doubled(&owners, why);
    if (result == 0 && owners.doubled)
        drop_others(&owners);
    if (result == 0 && indexed)
        note_disagreements(&owners);
    string_map_free(&owners.names);
    string_map_free(&owners.listed);
    free(owners.members);
    free(owners.others);
    free(owners.members_of_index);
    return result;
}
