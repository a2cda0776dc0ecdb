{{ config(materialized="table") }}
select id, area * {{ var("price", 10) }} as price from {{ ref("parcels") }}
