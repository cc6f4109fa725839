/* See checksum.h. */
#include "checksum.h"

uint64_t sum_bytes(const uint8_t *bytes, size_t length, uint64_t sum)
{
    /* 32-bit words into 64 bits: no carry is lost within 2^32 words, and compilers make vector code of it. */
    uint64_t words = 0;
    for (; length >= 4; bytes += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, bytes, sizeof word);
        words += word;
    }
    sum += (words & 0xffffffff) + (words >> 32);
    if (length >= 2) {
        uint16_t word;
        memcpy(&word, bytes, sizeof word);
        sum += word;
        bytes += 2;
        length -= 2;
    }
    if (length == 1) {
        const uint8_t padded[2] = {*bytes, 0};
        uint16_t word;
        memcpy(&word, padded, sizeof word);
        sum += word;
    }
    return sum;
}

uint64_t sum_pseudo_header(const uint8_t *ip, uint8_t protocol, size_t l4_length)
{
    uint64_t sum = sum_bytes(ip + IPV4_SOURCE, 8, 0);
    return sum_number((uint16_t)l4_length, sum_number(protocol, sum));
}

void finish_ip_checksum(uint8_t *ip, size_t header_length)
{
    store_be16(ip + IPV4_CHECKSUM, 0);
    sum_store(ip + IPV4_CHECKSUM, (uint16_t)~sum_fold(sum_bytes(ip, header_length, 0)));
}
