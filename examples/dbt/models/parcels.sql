{# The post-hook writes the tiles of this run's rows, for the exposure parcels_map. #}
{{ config(
    materialized="incremental",
    unique_key="id",
    incremental_strategy="delete+insert",
    post_hook="copy (
        select 14 as z,
               floor((lon + 180) / 360 * power(2, 14))::int as x,
               floor((1 - ln(tan(radians(lat)) + 1 / cos(radians(lat))) / pi()) / 2 * power(2, 14))::int as y
        from {{ this }} where loaded_by = '{{ invocation_id }}' group by all
    ) to 'target/changed_parcels.csv'"
) }}
select id, lon, lat, area, '{{ invocation_id }}' as loaded_by from {{ ref("parcels_delivered") }}
{% if is_incremental() %}
where not exists (select 1 from {{ this }} as known where known.id = parcels_delivered.id and known.area = parcels_delivered.area)
{% endif %}
