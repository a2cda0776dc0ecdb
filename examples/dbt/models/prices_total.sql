{{ config(materialized="table") }}
select sum(price) as price from {{ ref("prices") }}
