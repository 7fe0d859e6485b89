/* SPDX-License-Identifier: MIT */
#include "tests/fuzz/digest_list_check.h"

#include "digest/hub_metadata.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hub_metadata metadata;
    struct unshard_error error = {0};
    struct digest digest;
    hub_etag_digest((const char *)data, size, &digest);
    if (hub_metadata_parse((const char *)data, size, "fuzz", &metadata, &error) != 0) {
        require(error.code != NULL && error.message[0] != '\0');
        return 0;
    }
    size_t commit = strlen(metadata.commit);
    require(commit == 0 || hub_is_commit(metadata.commit, commit));
    require(metadata.digest.algorithm == DIGEST_NONE ||
            metadata.digest.algorithm == DIGEST_SHA256 ||
            metadata.digest.algorithm == DIGEST_GIT_SHA1);
    require(!hub_metadata_is_current(&metadata, INT64_MAX));
    return 0;
}
